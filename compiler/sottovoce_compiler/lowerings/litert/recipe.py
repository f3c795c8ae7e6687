"""Which precision goes where in a LiteRT bundle: the decisions, made from a precision's name and the model's shape.

Measured reasons are in docs/litert.md.
"""

from dataclasses import dataclass

from sottovoce.errors import InputError
from sottovoce_compiler.lowerings.litert.precision import LITERT_PRECISIONS
from sottovoce_compiler.lowerings.litert.stores import Int4Blocks, Int8Rows, KeepFloat, Store
from sottovoce_compiler.lowerings.parts import by_part

BLOCK = 32  # values of a row that share a scale; what the kernels for blocks want a multiple of


@dataclass(frozen=True, slots=True)
class Recipe:
    """The form of each part's matrices, and whether float tables are stored in half precision."""

    encoder: Store
    decoder: Store
    head: Store
    half_tables: bool


def recipe(precision: str, unit: int) -> Recipe:
    """The recipe for `precision` (see `lowerings.parts`); every row has a multiple of `unit` values. The float tables,
    nearly all of them the encoder's, are kept as its precision wants.

    Raises ValueError for an unknown precision, InputError where no block of weights divides the rows.
    """
    parts = by_part(precision)
    encoder, decoder, head = (_whole(parts[part], unit) for part in ("encoder", "decoder", "head"))
    return Recipe(encoder.encoder, decoder.decoder, head.head, encoder.half_tables)


def _whole(precision: str, unit: int) -> Recipe:
    match precision:
        case "fp32":
            return Recipe(KeepFloat(), KeepFloat(), KeepFloat(), half_tables=False)
        case "fp16":
            half = KeepFloat(half=True)
            return Recipe(half, half, half, half_tables=True)
        case "int8":
            return Recipe(Int8Rows(), Int8Rows(), Int8Rows(), half_tables=True)
        case "int4":
            # With the head in 4 bits too, whose scales are positive here, whisper-base lost 3.8 points of words.
            return Recipe(Int8Rows(), four_bits(unit), Int8Rows(), half_tables=True)
    raise ValueError(f"precision {precision!r} is not one of {', '.join(LITERT_PRECISIONS)}")


def four_bits(unit: int) -> Int4Blocks:
    """4 bits in blocks; InputError where they do not divide the rows."""
    if unit % BLOCK:
        raise InputError(f"rows of {unit} values do not divide into blocks of {BLOCK}; compile with --precision int8")
    return Int4Blocks(BLOCK)
