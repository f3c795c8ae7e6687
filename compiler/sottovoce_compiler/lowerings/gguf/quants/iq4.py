"""IQ4_NL: 32 values share a scale, and 4 bits pick one of sixteen levels that lie closer together near zero."""

import numpy as np
from numpy.typing import NDArray

from .arithmetic import EMPTY, ONE, TILE, ZERO, Bytes, Float, columns, half_bytes, inverse, peak, sum_down, tiles

BLOCK = 32
# The levels are part of the format.
LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
TRIES = 7


def _code_table() -> Bytes:
    """The code for floor(2 x) + 256: every midpoint between two levels is a multiple of a half, ties go up."""
    twice = np.arange(-256, 256)
    midpoints = (LEVELS[1:] + LEVELS[:-1]).astype(np.int64)
    return np.searchsorted(midpoints, twice, side="right").astype(np.uint8)


CODES = _code_table()
ROUNDED = LEVELS[CODES]


def _places(doubled: Float, out: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where in the tables 2 x lies; x is changed. What is not a number counts as beyond the last level, as in ggml."""
    np.floor(doubled, out=doubled)
    np.fmax(np.fmin(doubled, 255, out=doubled), -256, out=doubled)
    np.add(doubled, 256, out=out, casting="unsafe")
    return out


def iq4_nl(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 18 bytes for 32 columns).

    The scale is searched among 16 that map the peak near the table's end, weighing by value^2 or, with an importance
    matrix, importance * sqrt(twice the block's mean square + value^2); then every value takes its nearest level.
    """
    blocks = rows.reshape(-1, BLOCK)
    scales, codes = np.empty(len(blocks), np.float32), np.empty((BLOCK, len(blocks)), np.uint8)
    wide = None if importance is None else np.tile(importance.reshape(-1, BLOCK), (len(rows), 1))
    for tile in tiles(len(blocks), TILE):
        values = columns(blocks[tile])
        weights = values * values
        if wide is not None:
            mean = sum_down(weights) * np.float32(2 / BLOCK)
            weights = columns(wide[tile]) * np.sqrt(mean + weights)
        scales[tile] = _scale(values, weights)
        doubled = values * inverse(scales[tile]) * np.float32(2)
        codes[:, tile] = CODES[_places(doubled, np.empty(values.shape, np.intp))]
    packed = (codes[:16] | (codes[16:] << 4)).T
    return np.concatenate((half_bytes(scales), packed), axis=1).reshape(len(rows), -1)


def _scale(values: Float, weights: Float) -> Float:
    """The scale (blocks,) that gains most, as in `search.symmetric`, over levels instead of whole numbers."""
    top = peak(values)
    empty = np.abs(top) < EMPTY
    top = np.where(empty, ONE, top)
    places, levels, spare = np.empty(values.shape, np.intp), np.empty_like(values), np.empty_like(values)

    def sums(multiplier: Float) -> tuple[Float, Float]:
        np.multiply(np.multiply(values, multiplier, out=spare), 2, out=spare)
        ROUNDED.take(_places(spare, places), out=levels, mode="clip")
        np.multiply(weights, levels, out=spare)
        np.multiply(spare, levels, out=levels)
        return sum_down(np.multiply(spare, values, out=spare)), sum_down(levels)

    moment, power = sums(ONE / (-top / LEVELS[0]))
    scale = np.where(power > 0, moment / power, ZERO)
    gain = scale * moment
    for step in range(-TRIES, TRIES + 1):
        moment, power = sums((np.float32(step) + LEVELS[0]) / top)
        better = (power > 0) & (moment * moment > gain * power)
        scale = np.where(better, moment / power, scale)
        gain = np.where(better, scale * moment, gain)
    return np.where(empty, ZERO, scale)
