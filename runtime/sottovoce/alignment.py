"""When each token was said, from the cross-attention of the heads that follow the audio.

Method: attention weights of the alignment heads, normalized over tokens, smoothed over time, averaged over heads, and
the cheapest monotonic path through them by dynamic time warping (Radford et al. 2022's reference implementation; DTW:
Sakoe and Chiba 1978). Knows arrays only.
"""

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

_MEDIAN_FRAMES = 7  # of 20 ms: single frames of stray attention do not move a word
FRAME_SECONDS = 0.02


def token_times(attention: Float, frames: int) -> NDArray[np.float64]:
    """(heads, tokens, keys) float32, of which the first `frames` keys are audio -> (tokens,) start times in seconds.

    Row i is the attention while token i was being predicted; the last row belongs to the end token, so that its time
    ends the last word.
    """
    weights = attention[:, :, :frames]
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-9)
    spread = weights.std(axis=-2, keepdims=True)
    weights = (weights - weights.mean(axis=-2, keepdims=True)) / np.maximum(spread, 1e-9)
    matrix = _median(weights).mean(axis=0)
    tokens, at = warping_path(-matrix)
    first = np.flatnonzero(np.diff(tokens, prepend=-1))
    return at[first].astype(np.float64) * FRAME_SECONDS


def _median(weights: Float) -> Float:
    half = _MEDIAN_FRAMES // 2
    if weights.shape[-1] <= half:
        return weights
    padded = np.pad(weights, ((0, 0), (0, 0), (half, half)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN_FRAMES, axis=-1)
    result: Float = np.median(windows, axis=-1).astype(np.float32)
    return result


def warping_path(cost: Float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cheapest path through `cost` (rows, columns) from corner to corner by steps down, right or both.

    Returns the row and the column of every point of the path. Costs are filled one anti-diagonal at a time, which NumPy
    does at once.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float64)
    step = np.zeros((rows + 1, columns + 1), np.int8)
    total[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        choices = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        best = choices.argmin(axis=0)
        total[i, j] = cost[i - 1, j - 1] + np.take_along_axis(choices, best[None], axis=0)[0]
        step[i, j] = best
    return _trace(step)


def _trace(step: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    i, j = step.shape[0] - 1, step.shape[1] - 1
    path = []
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        move = step[i, j]
        i, j = i - (move != 2), j - (move != 1)
    points = np.array(path[::-1], np.int64).reshape(-1, 2)
    return points[:, 0], points[:, 1]
