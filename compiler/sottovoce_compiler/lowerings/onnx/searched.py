"""4-bit weights in blocks with a scale and a zero point each, both searched for: what `BlockLinear` is with less loss.

Knows the layout of MatMulNBits and how a block's scale and zero point are chosen; knows nothing of where the importance
of a column comes from, nor which matrix is quantized so (`causal_recipe.py` decides).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.onnx.graph import MICROSOFT, Graph

Float = NDArray[np.float32]
Codes = NDArray[np.uint8]

_TOP = 15  # the largest code of 4 bits
_SHRINKS = tuple(np.float32(1.04 - 0.04 * step) for step in range(9))  # of the step that spans a block's whole range
_SHIFTS = (-1.0, 0.0, 1.0)  # of the zero point that the range gives: which of its ends is cut
_REFITS = 2
_AT_ONCE = 1 << 11  # blocks: what is worked on stays in the cache, five times as fast as whole matrices
_TINY = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class ZeroPointBlocks:
    """A matrix (N, K) in blocks along its rows, value = (code - zero point) * scale.

    `packed` (N, K / block, block / 2) uint8, the even column in the low half; `scales` (N, K / block) float32;
    `zero_points` (N, ceil(K / block / 2)) uint8, packed alike.
    """

    packed: Codes
    scales: Float
    zero_points: Codes


@dataclass(frozen=True, slots=True, eq=False)
class SearchedLinear:
    """y = x W^T + b with W in 4 bits; activations int8, one scale a block of each row.

    `importance` (K,) float32 weighs each column's error: the mean square of what it is multiplied by. Without it all
    columns count alike.
    """

    block: int = 32
    importance: Float | None = None

    def describe(self) -> str:
        return f"4 bits in blocks of {self.block}"

    def quantize(self, weight: Float) -> ZeroPointBlocks:
        """The blocks of `weight` (N, K) that lose least in (weighted) mean square among those tried.

        Raises ValueError if the row length is not a multiple of the block, or `importance` is not one value a column.
        """
        rows, columns = weight.shape
        if columns % self.block:
            raise ValueError(f"rows of {columns} values do not divide into blocks of {self.block}")
        if self.importance is not None and self.importance.shape != (columns,):
            raise ValueError(f"importance of shape {self.importance.shape} for {columns} columns")
        count = columns // self.block
        blocks = np.ascontiguousarray(weight, np.float32).reshape(rows * count, self.block)
        weigh = self._column_weights(columns).reshape(count, self.block)
        codes, scales, zeros = _search(blocks, weigh)
        zeros = zeros.reshape(rows, count)
        if count % 2:
            zeros = np.pad(zeros, ((0, 0), (0, 1)))
        return ZeroPointBlocks(_pairs(codes).reshape(rows, count, -1), scales.reshape(rows, count), _pairs(zeros))

    def _column_weights(self, columns: int) -> Float:
        if self.importance is None:
            return np.ones(columns, np.float32)
        # A column that calibration never lit still counts a little: other text may light it.
        mean = float(self.importance.mean(dtype=np.float64)) or 1.0
        weights: Float = np.maximum(self.importance / np.float32(mean), np.float32(1e-3)).astype(np.float32)
        return weights

    def emit(self, graph: Graph, x: str, name: str, weight: Float, bias: Float | None) -> str:
        """See `linear.Linear`."""
        blocks = self.quantize(weight)
        inputs = [
            graph.weight(name, blocks.packed),
            graph.weight(f"{name}.scale", blocks.scales),
            graph.weight(f"{name}.zero_point", blocks.zero_points),
        ]
        if bias is not None:
            inputs += ["", graph.weight(f"{name}.bias", bias)]
        shape: dict[str, Any] = {"K": weight.shape[1], "N": weight.shape[0], "bits": 4, "block_size": self.block}
        return graph.op("MatMulNBits", x, *inputs, domain=MICROSOFT, accuracy_level=4, **shape)


def _search(blocks: Float, weigh: Float) -> tuple[Codes, Float, Codes]:
    """Codes (n, block), scales (n,) and zero points (n,) of `blocks` (n, block); `weigh` (m, block) repeats, n a
    multiple of m."""
    total, period = blocks.shape[0], weigh.shape[0]
    step = max(1, _AT_ONCE // period) * period
    repeated = np.tile(weigh, (min(step, total) // period, 1))
    codes = np.empty(blocks.shape, np.uint8)
    scales, zeros = np.empty(total, np.float32), np.empty(total, np.uint8)
    for start in range(0, total, step):
        part = slice(start, min(start + step, total))
        x = blocks[part]
        codes[part], scales[part], zeros[part] = _search_part(x, repeated[: len(x)])
    return codes, scales, zeros


def _search_part(x: Float, weigh: Float) -> tuple[Float, Float, Float]:
    low, high = np.minimum(x.min(axis=1), 0), np.maximum(x.max(axis=1), 0)
    span = np.maximum((high - low) / _TOP, _TINY)
    weighed = weigh * x
    best_step, best_zero = span, np.rint(-low / span)
    best_gain = np.full(len(x), -np.inf, np.float32)
    for shrink in _SHRINKS:
        step = span * shrink
        middle, ratio = np.rint(-(low + high) / 2 / step + np.float32(_TOP / 2)), x / step[:, None]
        for shift in _SHIFTS:
            zero = np.clip(middle + np.float32(shift), 0, _TOP)
            gain, _ = _fit(ratio, zero, weighed, weigh)
            better = gain > best_gain
            best_gain = np.where(better, gain, best_gain)
            best_step, best_zero = np.where(better, step, best_step), np.where(better, zero, best_zero)
    return _refine(x, best_step, best_zero, weighed, weigh)


def _fit(ratio: Float, zero: Float, weighed: Float, weigh: Float) -> tuple[Float, Float]:
    """How much of the weighted square is explained by rounding `ratio`, and the least-squares scale for it.

    With centred codes c, sum w (x - s c)^2 is least at s = sum w x c / sum w c^2, and is then less by (sum w x c)^2 /
    sum w c^2.
    """
    centred = np.rint(ratio)
    np.clip(centred, -zero[:, None], _TOP - zero[:, None], out=centred)
    along = np.einsum("ij,ij->i", weighed, centred)
    centred *= centred
    square = np.maximum(np.einsum("ij,ij->i", weigh, centred), _TINY)
    scale = along / square
    return along * scale, scale


def _refine(x: Float, step: Float, zero: Float, weighed: Float, weigh: Float) -> tuple[Float, Float, Float]:
    """The codes for step and zero, the scale fitted to them, and the codes for that scale where they are better."""
    best, scale = _fit(x / step[:, None], zero, weighed, weigh)
    for _ in range(_REFITS):
        tried: Float = np.where(np.abs(scale) < _TINY, _TINY, scale).astype(np.float32)
        gain, fitted = _fit(x / tried[:, None], zero, weighed, weigh)
        better = gain > best
        step = np.where(better, tried, step)
        best, scale = np.where(better, gain, best), np.where(better, fitted, scale)
    codes = np.clip(np.rint(x / step[:, None]) + zero[:, None], 0, _TOP)
    return codes, scale.astype(np.float32), zero


def _pairs(values: Codes) -> Codes:
    """Neighbours along the last axis in one byte, the first in the low half."""
    packed: Codes = values[..., 0::2] | (values[..., 1::2] << 4).astype(np.uint8)
    return packed
