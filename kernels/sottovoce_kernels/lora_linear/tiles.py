"""How lora_linear's products are cut into tiles, by compute capability, and where a weight is decoded.

Data, and the reasons for it; knows no kernel. Every row compiles for its target without a spill and within its shared
memory, which the tests assert; which of those that do is fastest is for a GPU to say.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Tile:
    """A program's share: `rows` tokens by `columns` outputs, in steps of `depth`; `stages` of loads in flight."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, Any]:
        """What a launch is given beside its arguments."""
        return {
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "DEPTH": self.depth,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }

    def filling(self, rows: int, columns: int, least: int) -> "Tile":
        """This tile, its rows halved while so many rows in `columns` tiles of columns leave a GPU's multiprocessors
        idle, but `least` of them kept."""
        fitted = self
        while fitted.rows > least and -(-rows // fitted.rows) * columns < PROGRAMS // 2:
            fitted = replace(fitted, rows=fitted.rows // 2)
        return fitted


@dataclass(frozen=True, slots=True)
class Tiles:
    """Of one kind of GPU. `project` and `decoding`: y, with the weight as it is and decoded in the loop; `gradient`
    and `gradient_decoding`: dx; `narrow`: x a^T and dy b; `adapter`: da and db. Each for 16-bit numbers; products
    in float32 are made of three in TF32 and need the registers: `narrow_float32`, and `float32` for all others."""

    project: Tile
    decoding: Tile
    gradient: Tile
    gradient_decoding: Tile
    narrow: Tile
    adapter: Tile
    float32: Tile
    narrow_float32: Tile


# By the least compute capability, times ten, that a row is for.
TILES: Mapping[int, Tiles] = {
    80: Tiles(
        project=Tile(128, 128, 32, 4, 4),
        decoding=Tile(128, 128, 64, 8, 3),
        gradient=Tile(128, 128, 32, 4, 4),
        gradient_decoding=Tile(128, 128, 64, 8, 3),
        narrow=Tile(32, 64, 64, 4, 4),
        adapter=Tile(64, 128, 64, 4, 3),
        float32=Tile(64, 64, 32, 4, 2),
        narrow_float32=Tile(32, 64, 32, 4, 3),
    ),
    90: Tiles(
        project=Tile(256, 128, 64, 8, 3),
        decoding=Tile(128, 128, 64, 8, 3),
        gradient=Tile(128, 256, 64, 8, 3),
        gradient_decoding=Tile(128, 128, 64, 8, 3),
        narrow=Tile(64, 64, 64, 4, 4),
        adapter=Tile(64, 128, 64, 4, 3),
        float32=Tile(64, 64, 32, 4, 2),
        narrow_float32=Tile(32, 64, 32, 4, 2),
    ),
    120: Tiles(
        project=Tile(128, 128, 32, 4, 4),
        decoding=Tile(128, 128, 64, 8, 2),
        gradient=Tile(128, 128, 32, 4, 4),
        gradient_decoding=Tile(128, 128, 64, 8, 2),
        narrow=Tile(32, 64, 64, 4, 3),
        adapter=Tile(64, 128, 64, 4, 2),
        float32=Tile(64, 64, 32, 4, 2),
        narrow_float32=Tile(32, 64, 32, 4, 3),
    ),
}
TILES_BELOW_90_BUT_80 = 120  # 8.6 and 8.9 are consumer cards and have their 99 KB of shared memory a block

# Rows of x above which a weight is decoded once, before its product, and not in the product's loop. A program decodes
# its tile again for every tile of rows, so the work grows with the rows. That of int8 and fp8, two or three
# instructions a value, fits under the tensor cores' at any number of rows; that of 4 bits, about ten, up to about 1000.
DECODED_IN_LOOP: Mapping[str, float] = {"dense": math.inf, "int8": math.inf, "fp8": math.inf, "nf4": 1024, "q4_0": 1024}
# The same for dx, whose rows are those of a training batch: where 4 bits are decoded in the loop at all, x is short.
GRADIENT_IN_LOOP = frozenset({"dense", "int8", "fp8"})

SWIZZLE = 8  # tiles of rows that run side by side: their x and the weight's tiles are read from the second-level cache
PROGRAMS = 264  # two for each multiprocessor of an H100, where a sum over rows is split to fill the GPU
SPLIT_ROWS = 128  # fewest rows that are a split's
LEAST_ROWS = 64  # of a tile of y or dx: rows of Hopper's matrix instruction
LEAST_NARROW_ROWS = 16  # of a tile of S, which waits for memory: rows of the smallest one


def capability_of(device: torch.device) -> int:
    """Compute capability times ten; that of the first row of TILES where there is no GPU."""
    if device.type != "cuda":
        return min(TILES)
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def tiles_for(capability: int) -> Tiles:
    """The row of TILES for a GPU: of the newest kind that it is not older than."""
    if 80 < capability < 90:
        return TILES[TILES_BELOW_90_BUT_80]
    known = [least for least in TILES if least <= capability]
    return TILES[max(known, default=min(TILES))]


def splits(rows: int, programs: int) -> int:
    """Into how many parts a sum over `rows` is split where one part has `programs`; the same on every GPU, so that a
    sum is the same to the bit."""
    return max(1, min(PROGRAMS // max(1, programs), rows // SPLIT_ROWS))
