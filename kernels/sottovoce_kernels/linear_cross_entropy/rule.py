"""What the loss is, of which rows, and how many of them a chunk has. Knows no implementation."""

from dataclasses import dataclass

import torch

IGNORED = -100

# A GPU's chunk is bound by arithmetic, not by reading the weight once more, from 300 rows on (an H100 does 295
# operations in the time of a byte), and this many bytes give that up to a vocabulary of 450,000.
GPU_CHUNK_BYTES = 256 * 2**20
GPU_CHUNK_ROWS = (256, 8192)
GPU_ROW_MULTIPLE = 128  # rows that one block of a matrix product has

# A CPU's logits should stay in its last cache between the two products. From 256 rows on, reading the weight again for
# each chunk cost less than a tenth of the products where it was tried, on two cores of an EPYC; below 128 a third.
CPU_CHUNK_BYTES = 32 * 2**20
CPU_CHUNK_ROWS = (128, 256)
CPU_ROW_MULTIPLE = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """The loss of a row with logits x (V,) and label y:

        z = softcap tanh(x / softcap)                         x itself where softcap is None
        loss = log sum exp z - (1 - e) z_y - e mean z         e: label_smoothing

    Softcapping is Gemma 2's (arXiv 2408.00118, section 2), smoothing that of Szegedy et al. 2016 (arXiv 1512.00567,
    section 7). Rows whose label is `ignore_index` have none. `chunk`: rows whose logits exist at a time, chosen where
    None.
    """

    label_smoothing: float = 0.0
    softcap: float | None = None
    ignore_index: int = IGNORED
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for values that mean nothing."""
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing {self.label_smoothing}; it is 0 or more and below 1")
        if self.softcap is not None and not self.softcap > 0.0:
            raise ValueError(f"softcap {self.softcap}; it is positive, or None for logits as they are")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk {self.chunk}; it is a number of rows, 1 or more, or None to have one chosen")


def chunk_rows(rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows of a chunk when there are `rows` in all: as many as the budgets above give, in chunks of equal size."""
    on_gpu = device.type == "cuda"
    budget, (fewest, most), multiple = (
        (GPU_CHUNK_BYTES, GPU_CHUNK_ROWS, GPU_ROW_MULTIPLE)
        if on_gpu
        else (CPU_CHUNK_BYTES, CPU_CHUNK_ROWS, CPU_ROW_MULTIPLE)
    )
    wanted = min(max(budget // (vocabulary * dtype.itemsize), fewest), most) // multiple * multiple
    chunks = -(-rows // wanted)
    even = -(-rows // max(chunks, 1))
    return max(-(-even // multiple) * multiple, 1)
