"""How the elementwise Triton kernels are cut: blocks of a row, or of all rows as one where they lie end to end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

BLOCK = 1024  # values a program: 8 a thread, one load of 16 bytes in half precision
WARPS = 4


@dataclass(frozen=True, slots=True)
class Blocks:
    """`rows` of `width` values each, `per_row` blocks a row; `strides`: of the rows of each tensor."""

    rows: int
    width: int
    strides: tuple[int, ...]

    @property
    def per_row(self) -> int:
        """Blocks a row."""
        return -(-self.width // BLOCK)

    @property
    def grid(self) -> tuple[int]:
        """One program a block."""
        return (self.rows * self.per_row,)

    @property
    def options(self) -> dict[str, Any]:
        """What a launch is given beside its arguments."""
        return {"BLOCK": BLOCK, "num_warps": WARPS, "enable_fp_fusion": True}


def blocks(tensors: Sequence[torch.Tensor]) -> Blocks:
    """How to cut tensors of one shape (T, N), each with the values of a row one behind the other."""
    rows, width = tensors[0].shape
    if all(tensor.is_contiguous() for tensor in tensors):
        return Blocks(1 if rows * width else 0, rows * width, (0,) * len(tensors))
    return Blocks(rows if width else 0, width, tuple(tensor.stride(0) for tensor in tensors))
