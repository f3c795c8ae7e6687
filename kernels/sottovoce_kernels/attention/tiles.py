"""How large a tile each kernel of attention works on, by GPU and width of a head.

Chosen by what the compiler says: large, but with no register spilled where the tests compile them, for a GPU of each
table, head widths of 64, 128 and 256, without masks and with all of them. Not tuned on a GPU.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Pass = Literal["forward", "dq", "dkdv"]


@dataclass(frozen=True, slots=True)
class Tile:
    """Queries and keys a step, warps of a program, steps in flight."""

    queries: int
    keys: int
    warps: int
    stages: int


Table = dict[Pass, dict[int, Tile]]  # by the widest head that a tile serves

HOPPER: Table = {  # compute capability 9.0: 64 rows or more a product, which wgmma wants, where there is room
    "forward": {64: Tile(128, 128, 8, 2), 128: Tile(128, 64, 8, 3), 256: Tile(128, 32, 8, 2)},
    "dq": {64: Tile(128, 64, 8, 2), 128: Tile(128, 32, 8, 2), 256: Tile(128, 16, 8, 2)},
    "dkdv": {64: Tile(32, 128, 8, 2), 128: Tile(32, 128, 8, 1), 256: Tile(32, 32, 8, 1)},
}
AMPERE: Table = {  # 8.0, and what else has 163 KB of shared memory a block or more
    "forward": {64: Tile(128, 64, 8, 3), 128: Tile(128, 32, 8, 3), 256: Tile(64, 32, 8, 2)},
    "dq": {64: Tile(128, 64, 8, 2), 128: Tile(64, 64, 8, 2), 256: Tile(64, 32, 8, 1)},
    "dkdv": {64: Tile(32, 128, 8, 2), 128: Tile(32, 64, 8, 2), 256: Tile(16, 64, 8, 1)},
}
CONSUMER: Table = {  # 8.6, 8.9, 12.0: 99 KB
    "forward": {64: Tile(128, 32, 8, 2), 128: Tile(128, 32, 8, 2), 256: Tile(64, 32, 8, 1)},
    "dq": {64: Tile(128, 64, 8, 2), 128: Tile(64, 32, 4, 2), 256: Tile(64, 16, 8, 1)},
    "dkdv": {64: Tile(32, 64, 8, 2), 128: Tile(32, 64, 8, 2), 256: Tile(16, 32, 8, 1)},
}
TABLES = {(9, 0): HOPPER, **dict.fromkeys(((8, 0), (8, 7), (10, 0), (10, 3)), AMPERE)}  # any other: CONSUMER
INTERPRETED = Tile(16, 16, 4, 1)  # small, so that short sequences have several


def tile(name: Pass, q: Tensor) -> Tile:
    """The tile for queries like `q` (T, H, D) on the device where it lies."""
    if not q.is_cuda:
        return INTERPRETED
    return tile_for(name, q.shape[2], torch.cuda.get_device_capability(q.device))


def tile_for(name: Pass, width: int, capability: tuple[int, int]) -> Tile:
    """The tile for heads of `width` values on a GPU of this compute capability. Raises ValueError for a width that no
    kernel takes."""
    table = TABLES.get(capability, CONSUMER)[name]
    for widest, found in table.items():
        if width <= widest:
            return found
    raise ValueError(f"heads of {width} values; attention's kernels take up to {max(table)}")
