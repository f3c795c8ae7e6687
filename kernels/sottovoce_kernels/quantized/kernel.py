# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
"""Decoding of quantized weights in Triton: a tile inside another kernel's loop, or a whole matrix.

The same numbers as `formats` gives, to the bit. Nothing here needs a GPU's own 8-bit float types, so all kinds run from
compute capability 8.0 on.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .formats import FORMATS, nf4_codes

if TYPE_CHECKING:
    from .weight import QuantizedWeight

TILE_ROWS, TILE_COLUMNS = 16, 256  # of a matrix decoded whole: rows of bytes long enough for full transactions


@triton.jit
def load_tile(
    data,
    scales,
    codes,
    row,
    first,
    rows,
    stored,
    row_stride,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Rows `row` (ROWS,) int64 and columns `first` to `first + COLUMNS` of a weight, (ROWS, COLUMNS).

    "dense" comes as it is. Of int8 and fp8 the numbers come without their row's scale, fp8 as float16 that are 2^8 too
    small; of nf4 and q4_0 the float32 weights, COLUMNS of which are blocks or, of nf4, an even part of one. `stored`:
    elements of `data` in a row; what lies beyond is zero.
    """
    present = (row < rows)[:, None]
    if KIND == "dense" or KIND == "int8" or KIND == "fp8":
        column = first + tl.arange(0, COLUMNS)[None, :]
        tile = tl.load(data + row[:, None] * row_stride + column, mask=present & (column < stored), other=0)
        if KIND == "fp8":
            bits = tile.to(tl.int16)
            tile = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
        return tile
    else:
        byte = first // 2 + tl.arange(0, COLUMNS // 2)[None, :]
        packed = tl.load(data + row[:, None] * row_stride + byte, mask=present & (byte < stored), other=0)
        pieces: tl.constexpr = max(1, COLUMNS // BLOCK)
        block = first // BLOCK + tl.arange(0, pieces)[None, :]
        blocks = 2 * stored // BLOCK
        scale = tl.load(scales + row[:, None] * blocks + block, mask=present & (block < blocks), other=0.0)
        if KIND == "nf4":
            nibbles = tl.join(packed >> 4, packed & 15)
            steps = tl.load(codes + nibbles.to(tl.int32))
        else:
            halves = tl.reshape(packed, (ROWS, pieces, BLOCK // 2))
            nibbles = tl.permute(tl.join(halves & 15, halves >> 4), (0, 1, 3, 2))
            steps = nibbles.to(tl.float32) - 8.0
        values = tl.reshape(steps, (ROWS, pieces, COLUMNS // pieces)) * scale.to(tl.float32)[:, :, None]
        return tl.reshape(values, (ROWS, COLUMNS))


@triton.jit
def row_factor(scales, row, present, KIND: tl.constexpr):
    """What `load_tile` left out, (ROWS,) float32: the scale of each row."""
    factor = tl.load(scales + row, mask=present, other=0.0)
    if KIND == "fp8":
        factor = factor * 256.0
    return factor


@triton.jit
def decode(
    data,
    scales,
    codes,
    out,
    N,
    K,
    stored,
    row_stride,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * COLUMNS
    tile = load_tile(data, scales, codes, row, first, N, stored, row_stride, KIND, BLOCK, ROWS, COLUMNS)
    tile = tile.to(tl.float32)
    if KIND == "int8" or KIND == "fp8":
        tile *= row_factor(scales, row, row < N, KIND)[:, None]
    column = first + tl.arange(0, COLUMNS)
    kept = (row < N)[:, None] & (column < K)[None, :]
    tl.store(out + row[:, None] * K + column[None, :], tile.to(out.dtype.element_ty), mask=kept)


def dequantize(weight: "QuantizedWeight", dtype: torch.dtype) -> Tensor:
    """`weight` as (N, K) of `dtype`."""
    rows, columns = weight.shape
    matrix = torch.empty(rows, columns, dtype=dtype, device=weight.device)
    grid = (triton.cdiv(rows, TILE_ROWS), triton.cdiv(columns, TILE_COLUMNS))
    if rows:
        decode[grid](
            *operands(weight),
            matrix,
            rows,
            columns,
            weight.data.shape[1],
            weight.data.stride(0),
            KIND=weight.kind,
            BLOCK=block_of(weight.kind),
            ROWS=TILE_ROWS,
            COLUMNS=TILE_COLUMNS,
        )
    return matrix


def operands(weight: "QuantizedWeight", codes: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `load_tile` takes of a weight: data, scales and the codes of nf4, in this dtype."""
    data = weight.data.view(torch.uint8) if weight.kind == "fp8" else weight.data
    scales = weight.scales if weight.outer is None else weight.float_scales()
    return data, scales, codes_on(weight.device, codes) if weight.kind == "nf4" else None


@cache
def codes_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The 16 values of nf4."""
    return torch.tensor(nf4_codes(), dtype=dtype, device=device)


def block_of(kind: Any) -> int:
    """Columns that share a scale; 1 where a row does, for kernels, which know no None among integers."""
    return (FORMATS[kind].block or 1) if kind in FORMATS else 1
