"""Bytes of weight matrices as LiteRT holds them beside its file: its kernels, XNNPACK, lay each out anew.

Knows each store of `lowerings.litert`; the stored bytes are in `matrices`.
"""

from collections.abc import Sequence

from sottovoce_compiler.lowerings.litert.stores import Int4Blocks, Int8Rows, KeepFloat
from sottovoce_compiler.memory.matrices import Matrix
from sottovoce_compiler.memory.measured import constants

_FLOAT, _HALF = 4, 2  # bytes
_ROW = 12  # bytes beside a row of codes: its sum, its scale and its bias, 32 bits each


def packed(matrices: Sequence[Matrix]) -> int:
    """Bytes of the copies of all matrices, in the layout of the kernels."""
    return sum(_packed(matrix) for matrix in matrices)


def widened(matrices: Sequence[Matrix]) -> int:
    """Bytes of those that are stored in halves, in float32."""
    return sum(matrix.values * _FLOAT for matrix in matrices if matrix.linear == KeepFloat(half=True))


def looked_up(head: Matrix) -> int:
    """Bytes beside the copy of an embedding in halves: widened for the lookup too, and for the product."""
    return round(constants("xnnpack")["half_head"] * widened([head]))


def _packed(matrix: Matrix) -> int:
    match matrix.linear:
        case KeepFloat():  # halves are widened for it
            return matrix.values * _FLOAT
        case Int8Rows():
            return matrix.values + matrix.rows * matrix.count * _ROW
        case Int4Blocks(block):
            return matrix.values // 2 + matrix.values // block * _HALF + matrix.rows * matrix.count * _ROW
    raise TypeError(f"no packed size of {type(matrix.linear).__name__}")
