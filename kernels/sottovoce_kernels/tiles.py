"""How row-wise Triton kernels are cut: rows of a tile and warps by width, programs by the GPU. Knows no operation."""

from dataclasses import dataclass
from typing import Any

import torch

from sottovoce_kernels.backend import BackendError

# Widest row, rows of a tile, warps forward, warps backward: a thread holds 16 values of a tile forward, where loads are
# of 16 bytes, and 8 backward, where it holds three to five such tiles at once and would spill.
TILES = (
    (64, 32, 4, 8),
    (128, 16, 4, 8),
    (256, 8, 4, 8),
    (512, 4, 4, 8),
    (1024, 2, 4, 8),
    (2048, 1, 4, 8),
    (4096, 1, 8, 16),
    (8192, 1, 16, 32),
)
WAVES = 4  # programs for each multiprocessor where each adds up what its rows give to a weight's gradient
PROGRAMS_ELSEWHERE = 4  # where there is no GPU to ask: in the interpreter


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` by `width` values, `width` a power of two; `warps` of 32 threads."""

    rows: int
    width: int
    warps: int

    def count(self, rows: int) -> int:
        """Tiles that cover this many rows."""
        return -(-rows // self.rows)

    @property
    def options(self) -> dict[str, Any]:
        """What a launch is given beside its arguments."""
        return {"ROWS": self.rows, "BLOCK": self.width, "num_warps": self.warps, "enable_fp_fusion": True}


def tile_for(width: int, *, backward: bool = False) -> Tile:
    """The tile for rows of `width` values. Raises BackendError for rows wider than the widest in TILES."""
    for widest, rows, *warps in TILES:
        if width <= widest:
            return Tile(rows, 1 << max(0, width - 1).bit_length(), warps[backward])
    raise BackendError(f"rows of {width} values; the kernels take up to {TILES[-1][0]}, use backend 'reference'")


def programs(device: torch.device, tiles: int) -> int:
    """How many programs share `tiles` where each writes a partial sum: enough to fill the GPU, and few to add up."""
    if device.type != "cuda":
        return min(tiles, PROGRAMS_ELSEWHERE)
    return min(tiles, WAVES * torch.cuda.get_device_properties(device).multi_processor_count)


def unit_stride(x: torch.Tensor) -> torch.Tensor:
    """`x` (T, W) with the values of a row one behind the other, as the kernels read them; rows may lie apart."""
    return x if x.stride(1) == 1 else x.contiguous()
