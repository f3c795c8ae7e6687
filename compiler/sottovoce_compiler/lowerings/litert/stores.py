"""How a matrix is stored in each precision of LiteRT: float32, half, 8 bits a row, 4 bits a block.

Knows quantization; knows neither operators nor which matrix belongs where (`recipe.py` does).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.litert.graph import Packed
from sottovoce_compiler.lowerings.litert.layers import Float, Stored

_SHARES = np.linspace(0.8, 1.16, 13, dtype=np.float32)  # scales to try, as shares of an eighth of the largest value
_AT_ONCE = 1 << 16  # values quantized together: what is worked on stays in the cache
_SMALLEST = 1e-3  # what a block's largest value counts as at least: float16 has no scale for less


class Store(Protocol):
    """Says how a matrix (rows, columns) float32 is stored."""

    def __call__(self, weight: Float) -> Stored: ...

    def describe(self) -> str:
        """One line about how weights are kept and multiplied."""
        ...


@dataclass(frozen=True, slots=True)
class KeepFloat:
    """As it is, or in half the bytes and widened when the file is loaded."""

    half: bool = False

    def __call__(self, weight: Float) -> Stored:
        return weight.astype(np.float16) if self.half else np.ascontiguousarray(weight, np.float32)

    def describe(self) -> str:
        return "float16 weights, float32 products" if self.half else "float32"


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """Codes from -127 to 127 with one scale a row, by its largest value."""

    def __call__(self, weight: Float) -> Stored:
        scales = (np.maximum(np.abs(weight).max(axis=1), 1e-12) / 127).astype(np.float32)
        return Packed(np.rint(weight / scales[:, None]).astype(np.int8), scales, weight.shape[1])

    def describe(self) -> str:
        return "int8 weights a channel, int8 activations a row"


@dataclass(frozen=True, slots=True, eq=False)
class Int4Blocks:
    """Codes from -8 to 7 with one scale for `block` values of a row: of a few, the one that loses least in mean square.

    `importance` (columns,) float32 weighs each column's error: the mean square of what it is multiplied by. Without it
    all columns count alike. Raises ValueError for rows that the block does not divide.
    """

    block: int
    importance: Float | None = None

    def __call__(self, weight: Float) -> Stored:
        rows, columns = weight.shape
        if columns % self.block:
            raise ValueError(f"rows of {columns} values do not divide into blocks of {self.block}")
        if self.importance is not None and self.importance.shape != (columns,):
            raise ValueError(f"importance of shape {self.importance.shape} for {columns} columns")
        blocks = np.ascontiguousarray(weight, np.float32).reshape(rows, columns // self.block, self.block)
        weigh = self._column_weights(columns).reshape(1, -1, self.block)
        step = max(1, _AT_ONCE // columns)
        parts = [_four_bits(blocks[start : start + step], weigh) for start in range(0, rows, step)]
        codes, scales = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        return Packed(codes, scales, columns, bits=4, block=self.block)

    def _column_weights(self, columns: int) -> Float:
        if self.importance is None:
            return np.ones(columns, np.float32)
        # A column that calibration never lit still counts a little: other text may light it.
        mean = np.float32(self.importance.mean(dtype=np.float64)) or np.float32(1)
        weights: Float = np.maximum(self.importance / mean, np.float32(1e-3)).astype(np.float32)
        return weights

    def describe(self) -> str:
        return f"int4 weights in blocks of {self.block}, int8 activations a row"


def _four_bits(blocks: Float, weigh: Float) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """(rows, blocks, block), errors weighed by (1, blocks, block) -> codes, two a byte, (rows, columns / 2), and scales
    (rows, blocks)."""
    # Scales are positive here: the side with 8 codes is the negative one, whichever has the largest value.
    base = (np.maximum(np.abs(blocks).max(axis=-1), _SMALLEST) / 8).astype(np.float32)
    best, least = base.astype(np.float16), np.full(base.shape, np.inf, np.float32)
    for share in _SHARES:
        scales = (base * share).astype(np.float16)
        scales = _fitted(blocks, scales, weigh)
        wide = scales.astype(np.float32)[..., None]
        error = (weigh * (_codes(blocks, scales) * wide - blocks) ** 2).sum(axis=-1)
        better = error < least
        best, least = np.where(better, scales, best), np.where(better, error, least)
    codes = _codes(blocks, best).astype(np.int8).reshape(len(blocks), -1).view(np.uint8)
    packed: NDArray[np.uint8] = ((codes[:, 0::2] & 15) | (codes[:, 1::2] << 4)).astype(np.uint8)
    return packed, best


def _codes(blocks: Float, scales: NDArray[np.float16]) -> Float:
    codes: Float = np.clip(np.rint(blocks / scales.astype(np.float32)[..., None]), -8, 7)
    return codes


def _fitted(blocks: Float, scales: NDArray[np.float16], weigh: Float) -> NDArray[np.float16]:
    """The scales that lose least for the codes that `scales` give: the weighted projection of values on codes."""
    codes = _codes(blocks, scales)
    along, square = (weigh * codes * blocks).sum(axis=-1), (weigh * codes * codes).sum(axis=-1)
    fitted = np.where(square > 0, along / np.maximum(square, 1e-12), 0).astype(np.float32)
    return np.where(fitted > _SMALLEST / 8, fitted, scales.astype(np.float32)).astype(np.float16)
