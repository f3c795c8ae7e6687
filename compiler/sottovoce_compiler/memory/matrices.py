"""Bytes of weight matrices: as they are stored in a bundle, and as onnxruntime holds them once a session is open.

Knows each kind of linear of `lowerings.onnx`, and how those of `lowerings.litert` are stored; what LiteRT holds is in
`xnnpack`. The stored bytes are exact; what is held was seen to be so of MLAS, onnxruntime's library of kernels
(benchmarks/results/memory.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sottovoce_compiler.lowerings.litert.stores import Int4Blocks, Int8Rows, KeepFloat
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear
from sottovoce_compiler.lowerings.onnx.searched import SearchedLinear
from sottovoce_compiler.memory.measured import constants

_SCALE, _HALF = 4, 2  # bytes: a float32, a float16


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight (rows, columns) kept as `linear` says, `count` times."""

    rows: int
    columns: int
    linear: object
    count: int = 1

    @property
    def values(self) -> int:
        return self.rows * self.columns * self.count

    @property
    def stored(self) -> int:
        """Bytes in the bundle."""
        match self.linear:
            case FloatLinear(half) | KeepFloat(half):
                return self.values * (2 if half else 4)
            case DynamicInt8Linear() | Int8Rows():
                return self.values + self.rows * self.count * _SCALE
            case BlockLinear(bits, block):
                return self.values * bits // 8 + self._blocks(block) * _SCALE
            case SearchedLinear(block):
                zero_points = -(-(self.columns // block) // 2) * self.rows * self.count
                return self.values // 2 + self._blocks(block) * _SCALE + zero_points
            case Int4Blocks(block):
                return self.values // 2 + self._blocks(block) * _HALF
        raise TypeError(f"no size of {type(self.linear).__name__}")

    @property
    def held(self) -> float:
        """Bytes in memory while the session is open: MLAS copies a matrix into its own layout."""
        known = constants("onnxruntime")
        match self.linear:
            case FloatLinear(half):  # stored halves are widened once, when the session opens
                return self.values * 4 * (1 + known["half"] if half else 1)
            case BlockLinear(_, block) | SearchedLinear(block):
                return self.stored + self._blocks(block) * known["block"]
        return self.stored

    @property
    def opening(self) -> float:
        """Bytes that are taken beside those held while this matrix is packed."""
        match self.linear:
            case FloatLinear(half):
                return self.values / self.count * 4 if half else 0
            case BlockLinear(bits):
                return self.values / self.count * bits / 8
            case SearchedLinear():
                return self.values / self.count / 2
        return self.values / self.count

    def _blocks(self, block: int) -> int:
        return self.values // block


def held(matrices: Sequence[Matrix]) -> int:
    """Bytes of all matrices of a session that is open."""
    return round(sum(matrix.held for matrix in matrices))


def opening(matrices: Sequence[Matrix]) -> int:
    """Bytes taken for a moment while sessions are opened: pages of the largest matrix, mapped and packed at once."""
    return round(constants("onnxruntime")["largest"] * max(matrix.opening for matrix in matrices))


def looked_up(head: Matrix) -> int:
    """Bytes of an embedding that looking up a few tokens maps in: all of its pages where a token is a column."""
    return round(constants("onnxruntime")["columns"] * head.values) if isinstance(head.linear, DynamicInt8Linear) else 0


def mapped_table(head: Matrix) -> int:
    """Bytes of an embedding in float32, which is looked up where it is mapped, and was read whole to pack the head."""
    return head.values * 4 if head.linear == FloatLinear() else 0
