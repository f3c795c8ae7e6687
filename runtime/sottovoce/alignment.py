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
# Exchanges of a sorting network that leave the median of seven in the middle: NumPy's own median is ten times slower.
_MEDIAN_NETWORK = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4),
)  # fmt: skip


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
    lanes = [padded[..., i : i + weights.shape[-1]] for i in range(_MEDIAN_FRAMES)]
    for low, high in _MEDIAN_NETWORK:
        lanes[low], lanes[high] = np.minimum(lanes[low], lanes[high]), np.maximum(lanes[low], lanes[high])
    return lanes[half]


def warping_path(cost: Float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cheapest path through `cost` (rows, columns) from corner to corner by steps down, right or both.

    Returns the row and the column of every point of the path. A row of totals is found at once: entering a row at
    column k and going right to j costs `entry[k]` and the sum of costs from k to j, so that the best k is a running
    minimum.
    """
    rows, columns = cost.shape
    cost = cost.astype(np.float64)
    total = np.empty((rows, columns), np.float64)
    total[0] = np.cumsum(cost[0])
    for i in range(1, rows):
        above, upto = total[i - 1], np.cumsum(cost[i])
        entry = above.copy()
        np.minimum(above[1:], above[:-1], out=entry[1:])
        total[i] = upto + np.minimum.accumulate(entry - (upto - cost[i]))
    return _trace(total)


def _trace(total: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    costs = total.tolist()  # plain numbers: single elements of an array are slow to read
    i, j = total.shape[0] - 1, total.shape[1] - 1
    path = [(i, j)]
    while i > 0 or j > 0:
        if i == 0 or j == 0:
            i, j = max(i - 1, 0), max(j - 1, 0)
        else:
            both, down, right = costs[i - 1][j - 1], costs[i - 1][j], costs[i][j - 1]
            if both <= min(down, right):
                i, j = i - 1, j - 1
            elif down <= right:
                i -= 1
            else:
                j -= 1
        path.append((i, j))
    points = np.array(path[::-1], np.int64)
    return points[:, 0], points[:, 1]
