"""Single-precision arithmetic in the order of a scalar loop, over many blocks at once.

llama.cpp adds a block's values one after the other in float32, without fused multiply-add. To reach the same bits,
blocks lie here in columns, (block size, blocks): an elementwise operation does one step of every block's loop, and a
sum down the columns adds in the same order. Knows nothing of formats or searches.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Int = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

ZERO = np.float32(0)
ONE = np.float32(1)
# Below this magnitude a block counts as empty in ggml's searches.
EMPTY = np.float32(1e-15)
# Adding 1.5 * 2^23 pushes the fraction out of a float32's mantissa: what stays is rounded half to even.
_ROUNDER = np.float32(12582912.0)
# Beyond this the sum leaves that binade, and the trick no longer rounds but wraps.
ROUNDS_UP_TO = np.float32(4e6)


# Blocks of 32 searched at once: what a search touches stays near a core's second-level cache, and the overhead of a
# NumPy call is small beside its work.
TILE = 2048


def columns(blocks: Float) -> Float:
    """(blocks, n) as a contiguous (n, blocks)."""
    return np.ascontiguousarray(blocks.T)


def tiles(count: int, size: int) -> list[slice]:
    """`count` blocks in runs of at most `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def sum_down(values: Float) -> Float:
    """The sum of each column of (n, blocks): zero, and then every row added in order.

    NumPy adds pairwise only along the innermost axis, which is the blocks' here unless there is just one.
    """
    if values.shape[1] == 1:
        return np.add.accumulate(np.concatenate((np.zeros(1, np.float32), values[:, 0])))[-1:]
    total: Float = np.add.reduce(values, axis=0, initial=0.0)
    return total


def sum_from_first(values: Float) -> Float:
    """The same without the zero: a column of negative zeros stays negative."""
    total: Float = values[0].copy()
    for row in values[1:]:
        total += row
    return total


def nearest(values: Float) -> Int:
    """Half to even, as integers; infinite and huge values come out as the same wrapped integers as in ggml."""
    bits = (values + _ROUNDER).view(np.int32)
    whole: Int = (bits & 0x7FFFFF) - 0x400000
    return whole


def low_byte(values: Float) -> Bytes:
    """What an x86 conversion to a byte keeps of truncated values: 0 for what no 32-bit integer holds."""
    fits = np.abs(values) < 2**31
    whole: Bytes = (np.where(fits, values, 0).astype(np.int64) & 0xFF).astype(np.uint8)
    return whole


def lowest(values: Float) -> Float:
    """The smallest value of each column; of zeros with different signs the first."""
    return _first_of_zeros(values, np.minimum.reduce(values, axis=0))


def highest(values: Float) -> Float:
    """The largest value of each column; of zeros with different signs the first."""
    return _first_of_zeros(values, np.maximum.reduce(values, axis=0))


def _first_of_zeros(values: Float, extreme: Float) -> Float:
    zero = np.flatnonzero(extreme == 0)
    if len(zero):
        some = values[:, zero]
        extreme[zero] = some[np.argmax(some == 0, axis=0), np.arange(len(zero))]
    return extreme


def peak(values: Float) -> Float:
    """The value of largest magnitude of each column, with its sign; of equal magnitudes the first; 0 for zeros."""
    high: Float = np.maximum.reduce(values, axis=0)
    low: Float = np.minimum.reduce(values, axis=0)
    found = np.where(high > -low, high, low)
    ties = np.flatnonzero(high == -low)
    if len(ties):
        some = values[:, ties]
        found[ties] = some[np.argmax(np.abs(some), axis=0), np.arange(len(ties))]
    found[found == 0] = 0  # never a negative zero
    return found


def inverse(values: Float) -> Float:
    """1 / value, and 0 for 0."""
    found: Float = np.where(values != 0, np.float32(1) / values, np.float32(0))
    return found


def half_bytes(values: Float) -> Bytes:
    """(blocks,) as little-endian float16 in (blocks, 2) bytes."""
    return little(values.astype(np.float16), "<f2").reshape(-1, 2)


def little(values: NDArray[Any], dtype: str) -> Bytes:
    return np.ascontiguousarray(values.astype(dtype, copy=False)).view(np.uint8)
