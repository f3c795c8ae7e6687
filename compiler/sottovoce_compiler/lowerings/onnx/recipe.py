"""Which precision goes where: the decisions of a lowering, made from a precision's name and the target's facts.

Measured reasons are in docs/decisions.md; this module is where a new measurement changes the outcome.
"""

from dataclasses import dataclass

from sottovoce.errors import InputError
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear, Linear
from sottovoce_compiler.lowerings.parts import by_part

PRECISIONS = ("int8", "int4", "fp16", "fp32")

# x86 CPUs without VNNI add pairs of u8*s8 products in 16 bits; 63 levels cannot saturate them.
_LEVELS_SAFE_ON_AVX2 = 63
_LEVELS_FULL = 127


@dataclass(frozen=True, slots=True)
class Recipe:
    """The linear of each part of an encoder-decoder, and whether float tables are stored in half precision."""

    encoder: Linear
    decoder: Linear
    head: Linear
    half_tables: bool


def recipe(precision: str, arch: str, instructions: frozenset[str], unit: int) -> Recipe:
    """The recipe for `precision` (see `lowerings.parts`) on a CPU of `arch` with `instructions`; every row has a
    multiple of `unit` values. The float tables, nearly all of them the encoder's, are kept as its precision wants.

    Raises ValueError for an unknown precision, InputError where no block of weights divides the rows.
    """
    parts = by_part(precision)
    chosen = {part: _whole_recipe(one, arch, instructions, unit) for part, one in parts.items()}
    encoder = chosen["encoder"]
    return Recipe(encoder.encoder, chosen["decoder"].decoder, chosen["head"].head, encoder.half_tables)


def _whole_recipe(precision: str, arch: str, instructions: frozenset[str], unit: int) -> Recipe:
    match precision:
        case "fp32":
            return Recipe(FloatLinear(), FloatLinear(), FloatLinear(), half_tables=False)
        case "fp16":
            half = FloatLinear(half=True)
            return Recipe(half, half, half, half_tables=True)
        case "int8" | "int4":
            return _integer_recipe(4 if precision == "int4" else 8, arch, instructions, unit)
    raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")


def _integer_recipe(bits: int, arch: str, instructions: frozenset[str], unit: int) -> Recipe:
    rows = row_linear(arch, instructions)
    if lacks_dot_product(arch, instructions):
        return Recipe(rows, rows, rows, half_tables=True)
    # In blocks of at most 64 a row's result is the same to the bit for any number of rows; in 128 it is not, and one
    # quantization further on that is another text. After the head there is none, and larger blocks are smaller.
    decoder = BlockLinear(bits, block_size(unit, 32 if bits == 4 else 64))
    head = BlockLinear(bits, block_size(unit, 32 if bits == 4 else 128))
    return Recipe(rows, decoder, head, half_tables=True)


def row_linear(arch: str, instructions: frozenset[str]) -> DynamicInt8Linear:
    """int8 with one scale an output channel, in the range that cannot saturate on this CPU."""
    saturates = arch == "x86-64" and not instructions & {"avx512_vnni", "avx_vnni"}
    return DynamicInt8Linear(_LEVELS_SAFE_ON_AVX2 if saturates else _LEVELS_FULL)


def lacks_dot_product(arch: str, instructions: frozenset[str]) -> bool:
    """Whether block kernels would unpack to float for every token: they need the dot product."""
    return arch == "aarch64" and "asimddp" not in instructions


def block_size(unit: int, most: int = 128) -> int:
    """The largest block up to `most` that divides rows of a multiple of `unit` values; InputError where none does."""
    for size in (128, 64, 32, 16):
        if size <= most and unit % size == 0:
            return size
    raise InputError(f"rows of {unit} values do not divide into blocks of 16 or more; compile with --precision fp16")
