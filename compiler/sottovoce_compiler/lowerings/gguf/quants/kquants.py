"""Q4_K, Q5_K and Q6_K: super-blocks of 256 values whose sub-blocks' scales are themselves quantized.

Q4_K and Q5_K have eight sub-blocks of 32 with a scale and an offset in 6 bits each, Q6_K sixteen of 16 with a scale in
8 bits. Each sub-block is searched on its own; then the scales are rounded, and every value takes the code nearest
under the rounded scale. Where a rounded scale is zero, the codes of the search stay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .arithmetic import EMPTY, ONE, TILE, ZERO, Bytes, Float, Int, columns, half_bytes, nearest, sum_down, tiles
from .search import AffineFit, AffineSteps, affine, positive, symmetric

SUPER = 256
SUB = 32
SUB_6 = 16
TOP_SCALE = 63  # scales and offsets of Q4_K and Q5_K are 6 bits
WEIGHTED_STEPS = AffineSteps(first=-0.9, step=0.05, count=37)


@dataclass(frozen=True, slots=True)
class _Affine:
    """What Q4_K and Q5_K differ by."""

    levels: int
    plain_steps: AffineSteps
    pack: Callable[[Bytes], Bytes]  # (super-blocks, 8, 32) codes to (super-blocks, bytes)


def _pack_4(codes: Bytes) -> Bytes:
    """Sub-blocks in pairs, the second in the upper four bits."""
    low: Bytes = np.bitwise_and(codes, 15)
    pairs: Bytes = np.bitwise_or(low[:, 0::2], np.left_shift(low[:, 1::2], 4))
    return pairs.reshape(len(codes), -1)


def _pack_5(codes: Bytes) -> Bytes:
    """The fifth bits, sub-block k in bit k of 32 bytes; then the lower four as in Q4_K."""
    fifth = (codes >> 4) << np.arange(8, dtype=np.uint8)[:, None]
    return np.concatenate((np.bitwise_or.reduce(fifth, axis=1), _pack_4(codes)), axis=1)


_Q4_K = _Affine(15, AffineSteps(first=-1.0, step=0.1, count=21), _pack_4)
_Q5_K = _Affine(31, AffineSteps(first=-0.5, step=0.1, count=16), _pack_5)


def q4_k(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 144 bytes for 256 columns)."""
    return _affine_rows(rows, importance, _Q4_K)


def q5_k(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 176 bytes for 256 columns)."""
    return _affine_rows(rows, importance, _Q5_K)


def _affine_rows(rows: Float, importance: Float | None, kind: _Affine) -> Bytes:
    blocks = rows.reshape(-1, SUB)
    wide = None if importance is None else np.tile(importance.reshape(-1, SUB), (len(rows), 1))
    fit, mass = _search_affine(blocks, wide, kind)
    scales, offsets = fit.scale.reshape(-1, 8), -fit.low.reshape(-1, 8)
    if wide is None:
        (scale, rounded), (offset, rounded_offsets) = _round_plain(scales), _round_plain(offsets)
    else:
        weights = columns(mass.reshape(-1, 8))
        scale, found = positive(columns(scales), weights, TOP_SCALE)
        offset, found_offsets = positive(columns(offsets), weights, TOP_SCALE)
        rounded, rounded_offsets = found.T, found_offsets.T
    packed = _pack_scales(rounded, rounded_offsets)
    rounded, rounded_offsets = _unpack_scales(packed)
    d = (_through_half(scale)[:, None] * rounded).reshape(-1)
    m = (_through_half(offset)[:, None] * rounded_offsets).reshape(-1)
    codes = np.clip(nearest((blocks + m[:, None]) / d[:, None]), 0, kind.levels).astype(np.uint8)
    kept = np.flatnonzero(d == 0)
    codes[kept] = _searched(fit, kept).codes(columns(blocks[kept]), kind.levels).T
    parts = (half_bytes(scale), half_bytes(offset), packed, kind.pack(codes.reshape(-1, 8, SUB)))
    return np.concatenate(parts, axis=1).reshape(len(rows), -1)


def _search_affine(blocks: Float, importance: Float | None, kind: _Affine) -> tuple[AffineFit, Float]:
    """The fit of every sub-block of (sub-blocks, 32), and the sum of each one's weights (sub-blocks,)."""
    found = np.empty((5, len(blocks)), np.float32)
    for tile in tiles(len(blocks), TILE):
        values = columns(blocks[tile])
        if importance is None:
            level = np.sqrt(sum_down(values * values) / np.float32(SUB))
            fit = affine(values, level + np.abs(values), kind.levels, kind.plain_steps)
        else:
            weights = columns(importance[tile]) * np.sqrt(_double_mean_square(blocks[tile]) + values * values)
            fit = affine(values, weights, kind.levels, WEIGHTED_STEPS)
            found[4, tile] = sum_down(weights)
        found[:4, tile] = fit.scale, fit.low, fit.multiplier, fit.origin
    return AffineFit(*found[:4]), found[4]


def _double_mean_square(blocks: Float) -> Float:
    """Twice the mean square of the super-block in which each of the sub-blocks (n, 32) lies, (n,)."""
    whole = columns(blocks.reshape(-1, SUPER))
    return np.repeat(2 * sum_down(whole * whole) / np.float32(SUPER), SUPER // SUB)


def _searched(fit: AffineFit, some: np.ndarray[tuple[int], np.dtype[np.intp]]) -> AffineFit:
    return AffineFit(fit.scale[some], fit.low[some], fit.multiplier[some], fit.origin[some])


def _round_plain(values: Float) -> tuple[Float, Bytes]:
    """(blocks, 8) as multiples of the largest / 63, and that: the rounding without an importance matrix."""
    largest = np.fmax.reduce(values, axis=1, initial=ZERO)
    multiplier = np.where(largest > 0, np.float32(TOP_SCALE) / largest, ZERO)
    whole = (nearest(multiplier[:, None] * values) & 0xFF).astype(np.uint8)
    return largest / np.float32(TOP_SCALE), np.minimum(whole, TOP_SCALE)


def _pack_scales(scales: Bytes, offsets: Bytes) -> Bytes:
    """Eight scales and eight offsets of 6 bits in 12 bytes, (blocks, 12).

    The first four of each take a byte; the others lie with their lower four bits in the last four bytes and their upper
    two on top of the first eight.
    """
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = offsets[:, :4] | ((offsets[:, 4:] >> 4) << 6)
    return np.concatenate((first, second, (scales[:, 4:] & 15) | ((offsets[:, 4:] & 15) << 4)), axis=1)


def _unpack_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate((first & 63, (third & 15) | ((first >> 6) << 4)), axis=1)
    offsets = np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)
    return scales, offsets


def _through_half(values: Float) -> Float:
    return values.astype(np.float16).astype(np.float32)


def q6_k(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 210 bytes for 256 columns)."""
    blocks = rows.reshape(-1, SUB_6)
    wide = None if importance is None else np.tile(importance.reshape(-1, SUB_6), (len(rows), 1))
    scales, searched = np.empty(len(blocks), np.float32), np.empty((len(blocks), SUB_6), np.uint8)
    for tile in tiles(len(blocks), 2 * TILE):
        values = columns(blocks[tile])
        fit = symmetric(values, values * values if wide is None else columns(wide[tile]), 32)
        scales[tile], searched[tile] = fit.scale, fit.codes(values, 32).T
    scale, rounded, empty = _round_signed(scales.reshape(-1, 16))
    d = (_through_half(scale)[:, None] * rounded.astype(np.float32)).reshape(-1, 1)
    nearby = (np.clip(nearest(blocks / d), -32, 31) + 32).astype(np.uint8)
    codes = np.where(d == 0, searched, nearby).reshape(-1, SUPER)
    codes[empty] = 0
    parts = (_pack_6(codes), rounded.astype(np.int8).view(np.uint8), half_bytes(scale))
    return np.concatenate(parts, axis=1).reshape(len(rows), -1)


def _round_signed(scales: Float) -> tuple[Float, Int, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """(blocks, 16) scales as multiples of the largest / -128: that, the multiples, and which blocks are empty."""
    size = np.abs(scales)
    size[np.isnan(size)] = 0
    at = np.argmax(size, axis=1)[:, None]
    largest = np.take_along_axis(scales, at, axis=1)
    empty = np.take_along_axis(size, at, axis=1) < EMPTY
    nonzero: Float = np.where(empty, ONE, largest)
    multiplier: Float = np.float32(-128) / nonzero
    rounded = np.where(empty, 0, np.minimum(nearest(multiplier * scales), 127))
    return np.where(empty, ZERO, ONE / multiplier)[:, 0], rounded, empty[:, 0]


def _pack_6(codes: Bytes) -> Bytes:
    """Halves of 128: the lower four bits of quarters 0 and 2, 1 and 3 in pairs; then the upper two of all four."""
    quarters = codes.reshape(-1, 2, 4, 32)
    low, high = quarters & 15, (quarters >> 4) << np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    pairs = low[:, :, :2] | (low[:, :, 2:] << 4)
    return np.concatenate(
        (pairs.reshape(len(codes), -1), np.bitwise_or.reduce(high, axis=2).reshape(len(codes), -1)), axis=1
    )
