"""How a matrix is stored in a package: one class each way, which emits what decompresses to float16.

Knows quantization and MIL's `constexpr` operations; knows nothing of which matrix belongs where. All take a weight of
shape (rows, columns) float32, and give a variable with as many trailing axes of 1 as are asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.coreml.palette import nearest, palette
from sottovoce_compiler.lowerings.coreml.precision import PALETTES
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear
from sottovoce_compiler.lowerings.onnx.searched import SearchedLinear

Float = NDArray[np.float32]
# (importance of a column, value, name of the part) -> a constant of the program being built.
Const = Callable[[str, Any], Any]

_GROUP_ROWS = 16  # rows that share one table of 4-bit values
_HALF_MAX = 65504.0


class Stored(Protocol):
    """A way of storing a matrix."""

    def emit(self, const: Const, name: str, weight: Float, ones: int) -> Any:
        """The variable for `weight` (rows, columns), with `ones` axes of 1 behind; `const(name, value)` makes the
        constants it needs."""
        ...

    def describe(self) -> str:
        """A few words for the report."""
        ...


@dataclass(frozen=True, slots=True)
class Half:
    """float16, as it is."""

    def emit(self, const: Const, name: str, weight: Float, ones: int) -> Any:
        return const(name, half(name, weight).reshape(*weight.shape, *[1] * ones))

    def describe(self) -> str:
        return "fp16"


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """8 bits with one scale a row. `plain` is the form from before iOS 18, which has no blocks."""

    plain: bool = False

    def emit(self, const: Const, name: str, weight: Float, ones: int) -> Any:
        from coremltools.converters.mil import Builder as mb

        scale = half(name, np.maximum(np.abs(weight).max(axis=1), 1e-4) / np.float32(127))
        codes = np.clip(np.rint(weight / scale.astype(np.float32)[:, None]), -127, 127).astype(np.int8)
        data = const(f"{name}_codes", codes.reshape(*weight.shape, *[1] * ones))
        if not self.plain:
            rows = const(f"{name}_scale", scale.reshape(-1, *[1] * (1 + ones)))
            return mb.constexpr_blockwise_shift_scale(data=data, scale=rows, name=name)
        return mb.constexpr_affine_dequantize(
            quantized_data=data,
            zero_point=const(f"{name}_zero", np.int8(0)),
            scale=const(f"{name}_scale", scale),
            axis=const(f"{name}_axis", np.int32(0)),
            name=name,
        )

    def describe(self) -> str:
        return "8 bits by row"


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """Indices of `bits` bits into a table of values: one for the whole matrix, or one for every few rows where
    `grouped`. `packed` is the form from before iOS 18, which has no groups.

    `importance` (columns,) float32 weighs each column's error.
    """

    bits: int
    grouped: bool = False
    packed: bool = False
    importance: Float | None = None

    def emit(self, const: Const, name: str, weight: Float, ones: int) -> Any:
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil.types.type_mapping import string_to_nptype

        rows, shape = len(weight), (*weight.shape, *[1] * ones)
        codes, tables = self.codes(weight, _GROUP_ROWS if self.grouped and rows % _GROUP_ROWS == 0 else rows)
        if self.packed:
            bits = np.unpackbits(codes[..., None], axis=-1, bitorder="little")[..., : self.bits]
            return mb.constexpr_lut_to_dense(
                indices=const(f"{name}_indices", np.packbits(bits, bitorder="little")),
                lut=const(f"{name}_table", half(name, tables[0])),
                shape=const(f"{name}_shape", np.array(shape, np.uint32)),
                name=name,
            )
        kind = string_to_nptype(f"uint{self.bits}")
        return mb.constexpr_lut_to_dense(
            indices=const(f"{name}_indices", codes.reshape(shape).astype(kind)),
            lut=const(f"{name}_table", half(name, tables).reshape(len(tables), *[1] * (1 + ones), -1, 1)),
            name=name,
        )

    def codes(self, weight: Float, group: int) -> tuple[NDArray[np.uint8], Float]:
        """Indices (rows, columns), and tables (rows / group, 2^bits)."""
        weights = None if self.importance is None else np.broadcast_to(self.importance, weight.shape)
        codes, tables = np.empty(weight.shape, np.uint8), []
        for start in range(0, len(weight), group):
            part = slice(start, start + group)
            table = palette(weight[part], 1 << self.bits, None if weights is None else weights[part])
            codes[part] = nearest(weight[part], table)
            tables.append(table)
        return codes, np.stack(tables)

    def describe(self) -> str:
        return f"{self.bits} bits into a table for {f'{_GROUP_ROWS} rows' if self.grouped else 'the matrix'}"


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """4 or 8 bits in blocks along the rows. At 4 bits each block has a scale and a zero point that are searched for,
    with `importance` (columns,) weighing the error; at 8 bits a fitted scale."""

    bits: int
    block: int
    importance: Float | None = None

    def emit(self, const: Const, name: str, weight: Float, ones: int) -> Any:
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil.types.type_mapping import string_to_nptype

        codes, scale, zero = self.quantize(weight)
        kind = string_to_nptype("uint4" if self.bits == 4 else "int8")
        behind = [1] * ones
        offset = None if zero is None else const(f"{name}_zero", zero.reshape(*zero.shape, *behind).astype(kind))
        return mb.constexpr_blockwise_shift_scale(
            data=const(f"{name}_codes", codes.reshape(*weight.shape, *behind).astype(kind)),
            scale=const(f"{name}_scale", half(name, scale).reshape(*scale.shape, *behind)),
            offset=offset,
            name=name,
        )

    def quantize(self, weight: Float) -> tuple[NDArray[Any], Float, NDArray[np.uint8] | None]:
        """Codes (rows, columns), scales and zero points (rows, columns / block). Raises ValueError where the block
        does not divide the rows."""
        rows, columns = weight.shape
        count = columns // self.block
        if self.bits == 8:
            plain = BlockLinear(8, self.block, fitted=True).quantize(weight)
            codes = plain.packed.reshape(rows, columns).astype(np.int16) - 128
            return codes.astype(np.int8), plain.scales, None
        found = SearchedLinear(self.block, self.importance).quantize(weight)
        return (
            _unpaired(found.packed).reshape(rows, columns),
            found.scales,
            _unpaired(found.zero_points)[:, :count],
        )

    def describe(self) -> str:
        return f"{self.bits} bits in blocks of {self.block}"


def stored(precision: str, system: str, block: int) -> Stored:
    """The way of storing that `precision`, one of `COREML_PRECISIONS`, has in a package for `system`; `block` is of
    those with blocks."""
    if precision in PALETTES:
        return Palette(PALETTES[precision], grouped=PALETTES[precision] == 4, packed=system == "iOS17")
    ways: Mapping[str, Stored] = {"fp16": Half(), "int8": Int8Rows(system == "iOS17"), "int4": Blocks(4, block)}
    return ways[precision]


def weighed(one: Stored, importance: Float | None) -> Stored:
    """`one`, with columns that count by `importance` where that matters to it."""
    return replace(one, importance=importance) if isinstance(one, Palette | Blocks) else one


def half(name: str, values: Float) -> NDArray[np.float16]:
    """In float16. Raises ValueError for a value that is none."""
    if not np.abs(values).max(initial=0) <= _HALF_MAX:
        raise ValueError(f"{name} holds {np.abs(values).max():g}, beyond the {_HALF_MAX:g} of float16")
    return values.astype(np.float16)


def _unpaired(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two values for each byte along the last axis, the low half first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
