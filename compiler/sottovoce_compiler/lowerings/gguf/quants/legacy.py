"""Q4_0, Q4_1, Q5_0 and Q5_1: 32 values share a scale (and, for _1, an offset), 4 or 5 bits each.

Without an importance matrix the scale follows from the extremes; with one it is searched, each value weighing
importance * sqrt(mean square of its row + value^2).
"""

import numpy as np

from .arithmetic import (
    TILE,
    Bytes,
    Float,
    columns,
    half_bytes,
    highest,
    inverse,
    little,
    low_byte,
    lowest,
    peak,
    sum_down,
    tiles,
)
from .search import AffineSteps, affine, symmetric

BLOCK = 32
STEPS = AffineSteps(first=-0.9, step=0.05, count=37)


def q4_0(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 18 bytes for 32 columns)."""
    return _signed(rows, importance, bits=4)


def q5_0(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 22 bytes for 32 columns)."""
    return _signed(rows, importance, bits=5)


def q4_1(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 20 bytes for 32 columns)."""
    return _offset(rows, importance, bits=4)


def q5_1(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 24 bytes for 32 columns)."""
    return _offset(rows, importance, bits=5)


def _signed(rows: Float, importance: Float | None, bits: int) -> Bytes:
    """value = scale * (code - levels); the value of largest magnitude has code 0."""
    blocks, levels = rows.reshape(-1, BLOCK), 1 << (bits - 1)
    scales, codes = np.empty(len(blocks), np.float32), np.empty((BLOCK, len(blocks)), np.uint8)
    weights = None if importance is None else row_weights(rows, importance)
    for tile in tiles(len(blocks), TILE):
        values = columns(blocks[tile])
        if weights is None:
            scales[tile] = peak(values) / np.float32(-levels)
            shifted = values * inverse(scales[tile]) + np.float32(levels + 0.5)
            codes[:, tile] = np.minimum(low_byte(shifted).view(np.int8), 2 * levels - 1).view(np.uint8)
        else:
            fit = symmetric(values, columns(weights[tile]), levels)
            scales[tile], codes[:, tile] = fit.scale, fit.codes(values, levels)
    return _pack(rows, codes, bits, scales)


def _offset(rows: Float, importance: Float | None, bits: int) -> Bytes:
    """value = scale * code + low."""
    blocks, levels = rows.reshape(-1, BLOCK), (1 << bits) - 1
    scales, lows = np.empty((2, len(blocks)), np.float32)
    codes = np.empty((BLOCK, len(blocks)), np.uint8)
    weights = None if importance is None else row_weights(rows, importance)
    for tile in tiles(len(blocks), TILE):
        values = columns(blocks[tile])
        if weights is None:
            lows[tile] = lowest(values)
            scales[tile] = (highest(values) - lows[tile]) / np.float32(levels)
            scaled = (values - lows[tile]) * inverse(scales[tile]) + np.float32(0.5)
            codes[:, tile] = np.minimum(low_byte(scaled).view(np.int8), levels).view(np.uint8)
        else:
            fit = affine(values, columns(weights[tile]), levels, STEPS)
            scales[tile], lows[tile], codes[:, tile] = fit.scale, fit.low, fit.codes(values, levels)
    return _pack(rows, codes, bits, scales, lows)


def row_weights(rows: Float, importance: Float) -> Float:
    """importance * sqrt(mean square of the row + value^2), (blocks, 32)."""
    squares = rows * rows
    mean = sum_down(columns(squares)) / np.float32(rows.shape[1])
    weights: Float = importance * np.sqrt(mean[:, None] + squares)
    return weights.reshape(-1, BLOCK)


def _pack(rows: Float, codes: Bytes, bits: int, *floats: Float) -> Bytes:
    """float16 scale (and offset), the fifth bits as a 32-bit word, then value j and value j + 16 in one byte."""
    parts = [half_bytes(values) for values in floats]
    if bits == 5:
        parts.append(_words(codes))
    low: Bytes = np.bitwise_and(codes, 15)
    pairs: Bytes = np.bitwise_or(low[:16], np.left_shift(low[16:], 4))
    parts.append(pairs.T)
    return np.concatenate(parts, axis=1).reshape(len(rows), -1)


def _words(codes: Bytes) -> Bytes:
    """The fifth bits of (32, blocks) codes as 32-bit words, the first value's lowest, (blocks, 4)."""
    fifth = np.right_shift(codes, 4).astype(np.uint32) << np.arange(32, dtype=np.uint32)[:, None]
    return little(np.bitwise_or.reduce(fifth, axis=0), "<u4").reshape(-1, 4)
