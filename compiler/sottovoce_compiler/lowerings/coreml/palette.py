"""The table of a few values that many are rounded to with the least (weighted) square error.

Lloyd's method (Lloyd 1982, "Least squares quantization in PCM") on the sorted values: a cell is a range of them, so
that a pass costs a binary search for each boundary, however many values there are.
"""

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
_PASSES = 60


def palette(values: Float, size: int, weights: Float | None = None) -> Float:
    """`size` values, ascending (size,) float32 and exact in float16, for `values` of any shape; `weights` of the same
    shape say how much each one's error counts."""
    flat = np.sort(values, axis=None).astype(np.float64) if weights is None else None
    if flat is None:
        assert weights is not None
        order = np.argsort(values, axis=None, kind="stable")
        flat = values.ravel()[order].astype(np.float64)
        mass = weights.ravel()[order].astype(np.float64)
    else:
        mass = np.ones_like(flat)
    upto = np.concatenate([[0.0], np.cumsum(mass)])
    sums = np.concatenate([[0.0], np.cumsum(mass * flat)])
    table = _start(flat, upto, size)
    for _ in range(_PASSES):
        edges = np.searchsorted(flat, (table[1:] + table[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [flat.size]])
        weight, total = np.diff(upto[bounds]), np.diff(sums[bounds])
        moved = np.sort(np.where(weight > 0, total / np.where(weight > 0, weight, 1), table))
        if np.array_equal(moved, table):
            break
        table = moved
    return table.astype(np.float16).astype(np.float32)


def nearest(values: Float, table: Float) -> NDArray[np.uint8]:
    """The index of the nearest value of an ascending `table`, for each of `values`, of their shape."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values).astype(np.uint8)


def _start(flat: NDArray[np.float64], upto: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Half of the way between equal shares of the values and equal steps: the one starves the tails, the other the
    middle."""
    shares = (np.arange(size) + 0.5) / size
    equal = flat[np.minimum(np.searchsorted(upto[1:], shares * upto[-1]), flat.size - 1)]
    steps = flat[0] + shares * (flat[-1] - flat[0])
    return np.sort((equal + steps) / 2)
