"""The searches of ggml's quantizers: for each block the scale (and offset) with the smallest weighted error.

Each is a formulation over columns, (n, blocks), of what ggml does one block at a time; the steps, their order and every
rounding are its own, because the result has to be the same to the bit. They know nothing of how codes are packed.
Codes are not kept while searching: the multiplier that made the best ones is, and `codes` makes them again.
"""

from dataclasses import dataclass

import numpy as np

from .arithmetic import (
    EMPTY,
    ONE,
    ROUNDS_UP_TO,
    ZERO,
    Bytes,
    Float,
    Int,
    Mask,
    highest,
    lowest,
    nearest,
    peak,
    sum_down,
    sum_from_first,
)

TENTH = np.float32(0.1)


@dataclass(frozen=True, slots=True)
class SymmetricFit:
    """value = scale * code, -levels <= code < levels; arrays (blocks,)."""

    scale: Float
    multiplier: Float  # code = nearest(multiplier * value)
    empty: Mask

    def codes(self, values: Float, levels: int) -> Bytes:
        """Codes plus `levels`, (n, blocks); those of an empty block are 0."""
        whole = np.clip(nearest(self.multiplier * values), -levels, levels - 1) + levels
        return np.where(self.empty, 0, whole).astype(np.uint8)


def symmetric(values: Float, weights: Float, levels: int) -> SymmetricFit:
    """Fit signed codes to `values` (n, blocks) under `weights` (n, blocks), 19 multipliers around -levels / peak.

    For fixed codes c the best scale is sum(w x c) / sum(w c c), and it lowers the squared error by
    sum(w x c)^2 / sum(w c c), which is what the candidates are compared by. The largest magnitude gets the code
    -levels, of which there is one more than on the other side.
    """
    top = peak(values)
    empty = np.abs(top) < EMPTY
    top = np.where(empty, ONE, top)
    weighted = weights * values
    rounded, spare = np.empty_like(values), np.empty_like(values)

    def sums(multiplier: Float) -> tuple[Float, Float]:
        np.rint(np.multiply(values, multiplier, out=rounded), out=rounded)
        np.maximum(np.minimum(rounded, levels - 1, out=rounded), -levels, out=rounded)
        moment = sum_down(np.multiply(weighted, rounded, out=spare))
        np.multiply(weights, rounded, out=spare)
        return moment, sum_down(np.multiply(spare, rounded, out=spare))

    multiplier = np.float32(-levels) / top
    moment, power = sums(multiplier)
    scale = np.where(power != 0, moment / power, ZERO)
    gain = scale * moment
    for step in (*range(-9, 0), *range(1, 10)):
        tried = -(np.float32(levels) + TENTH * np.float32(step)) / top
        moment, power = sums(tried)
        better = (power > 0) & (moment * moment > gain * power)
        scale = np.where(better, moment / power, scale)
        gain = np.where(better, scale * moment, gain)
        multiplier = np.where(better, tried, multiplier)
    return SymmetricFit(np.where(empty, ZERO, scale), multiplier, empty)


@dataclass(frozen=True, slots=True)
class AffineSteps:
    """The multipliers an affine search tries: (levels + first + step * i) / range, for i = 0 to count - 1."""

    first: float
    step: float
    count: int

    def multiplier(self, i: int, levels: int, extent: Float) -> Float:
        """Step `i` for blocks of range `extent` (blocks,)."""
        numerator = np.float32(self.first) + np.float32(self.step) * np.float32(i) + np.float32(levels)
        found: Float = numerator / extent
        return found


@dataclass(frozen=True, slots=True)
class AffineFit:
    """value = scale * code + low, 0 <= code <= levels, low <= 0; arrays (blocks,)."""

    scale: Float
    low: Float
    multiplier: Float  # code = nearest(multiplier * (value - origin)); 0 in a block that is constant
    origin: Float

    def codes(self, values: Float, levels: int) -> Bytes:
        """(n, blocks)"""
        return np.clip(nearest(self.multiplier * (values - self.origin)), 0, levels).astype(np.uint8)


class _AffineTrial:
    """The values of one affine search and the buffers in which a candidate is tried."""

    def __init__(self, values: Float, weights: Float, levels: int) -> None:
        self.values, self.weights, self.levels = values, weights, levels
        self.codes, self.spare, self.other = (np.empty_like(values) for _ in range(3))
        self.least, self.high = lowest(values), highest(values)
        self.sum_w = sum_from_first(weights)
        self.sum_x = sum_from_first(np.multiply(weights, values, out=self.spare))

    def round(self, multiplier: Float, origin: Float) -> None:
        """Set the codes for a multiplier (blocks,) and an origin (blocks,)."""
        scaled = np.multiply(np.subtract(self.values, origin, out=self.codes), multiplier, out=self.codes)
        reach = np.abs(multiplier) * np.maximum(self.high - origin, origin - self.least)
        if reach.max() < ROUNDS_UP_TO:
            np.rint(scaled, out=self.codes)
            np.maximum(np.minimum(self.codes, self.levels, out=self.codes), 0, out=self.codes)
        else:  # some multiplier is infinite or huge: round the long way, which wraps as ggml does
            self.codes[:] = np.clip(nearest(scaled), 0, self.levels)

    def error(self, scale: Float, low: Float) -> Float:
        np.add(np.multiply(self.codes, scale, out=self.spare), low, out=self.spare)
        np.subtract(self.spare, self.values, out=self.spare)
        np.multiply(self.spare, self.spare, out=self.spare)
        return sum_down(np.multiply(self.spare, self.weights, out=self.spare))

    def solve(self) -> tuple[Float, Float, Mask]:
        """Scale and low (<= 0) of the weighted least squares line through the codes, and where there is one."""
        weighted = np.multiply(self.weights, self.codes, out=self.spare)
        sum_l = sum_down(weighted)
        sum_l2 = sum_down(np.multiply(weighted, self.codes, out=self.other))
        sum_xl = sum_down(np.multiply(weighted, self.values, out=weighted))
        determinant = self.sum_w * sum_l2 - sum_l * sum_l
        scale = (self.sum_w * sum_xl - self.sum_x * sum_l) / determinant
        low = (sum_l2 * self.sum_x - sum_l * sum_xl) / determinant
        above = low > 0
        return np.where(above, sum_xl / sum_l2, scale), np.where(above, ZERO, low), determinant > 0


def affine(values: Float, weights: Float, levels: int, steps: AffineSteps) -> AffineFit:
    """Fit unsigned codes and an offset to `values` (n, blocks) under `weights` (n, blocks).

    Every multiplier of `steps` gives codes, for which scale and offset are the weighted least squares solution; the one
    of smallest squared error stays. An offset above zero is taken as zero. As in ggml the range that later multipliers
    divide begins at the best offset so far, so the order of the steps matters.
    """
    trial = _AffineTrial(values, weights, levels)
    start = np.where(trial.least > 0, ZERO, trial.least)
    constant = trial.high == start
    high: Float = np.where(constant, start + ONE, trial.high)
    multiplier: Float = np.float32(levels) / (high - start)
    origin = start
    trial.round(multiplier, origin)
    scale, low = ONE / multiplier, start
    best = trial.error(scale, low)
    for i in range(steps.count):
        tried = steps.multiplier(i, levels, high - low)
        trial.round(tried, low)
        new_scale, new_low, solvable = trial.solve()
        error = trial.error(new_scale, new_low)
        better = solvable & (error < best)
        multiplier, origin = np.where(better, tried, multiplier), np.where(better, low, origin)
        best, scale, low = (
            np.where(better, new, old) for new, old in ((error, best), (new_scale, scale), (new_low, low))
        )
    scale, multiplier, origin = (np.where(constant, ZERO, found) for found in (scale, multiplier, origin))
    return AffineFit(scale, np.where(constant, start, low), multiplier, origin)


def positive(values: Float, weights: Float, levels: int) -> tuple[Float, Bytes]:
    """Fit codes 0 to `levels` to `values` >= 0 (n, blocks) under `weights` (n, blocks): scale (blocks,), codes.

    Nine multipliers around levels / largest, then up to five sweeps in which each code in turn moves to what is best
    given all the others, if the fit gains by it. Made for a block's 8 or 16 scales: a loop over n, not over blocks.
    """
    largest = np.fmax.reduce(values, axis=0, initial=ZERO)
    empty = largest < EMPTY
    largest = np.where(empty, ONE, largest)
    multiplier = _positive_multiplier(values, weights, levels, largest)
    whole = np.minimum(nearest(multiplier * values), levels)
    moment = sum_down(weights * values * whole.astype(np.float32))
    power = sum_down(weights * whole.astype(np.float32) * whole.astype(np.float32))
    codes = whole.astype(np.uint8)
    for _ in range(5):
        before = moment, power
        moment, power = _sweep(values, weights, levels, codes, moment, power)
        if np.array_equal(before, (moment, power)):
            break
    scale = np.where((power > 0) & ~empty, moment / power, ZERO)
    return scale, np.where(empty, 0, codes).astype(np.uint8)


def _positive_multiplier(values: Float, weights: Float, levels: int, largest: Float) -> Float:
    def error(scale: Float, codes: Int | Bytes) -> Float:
        difference = values - scale * codes.astype(np.float32)
        return sum_down(weights * difference * difference)

    multiplier = np.float32(levels) / largest
    best = error(ONE / multiplier, nearest(multiplier * values).astype(np.uint8))
    for step in (*range(-4, 0), *range(1, 5)):
        tried = (TENTH * np.float32(step) + np.float32(levels)) / largest
        found = error(ONE / tried, np.minimum(nearest(tried * values), levels))
        better = found < best
        best, multiplier = np.where(better, found, best), np.where(better, tried, multiplier)
    return multiplier


def _sweep(
    values: Float, weights: Float, levels: int, codes: Bytes, moment: Float, power: Float
) -> tuple[Float, Float]:
    """Move each code once, in place; the sums sum(w x c) and sum(w c c) that follow."""
    for x, w, row in zip(values, weights, codes, strict=True):
        old = row.astype(np.float32)
        rest_moment, rest_power = moment - w * x * old, power - w * old * old
        usable = (rest_moment > 0) & (rest_power > 0)
        whole = np.minimum(nearest(x * rest_power / rest_moment), levels)
        new = whole.astype(np.float32)
        new_moment, new_power = rest_moment + w * x * new, rest_power + w * new * new
        gains = new_moment * new_moment * power > moment * moment * new_power
        moved = usable & (whole != row) & gains
        row[moved] = whole[moved].astype(np.uint8)
        moment, power = np.where(moved, new_moment, moment), np.where(moved, new_power, power)
    return moment, power
