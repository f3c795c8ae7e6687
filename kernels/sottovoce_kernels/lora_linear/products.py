# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
"""The products of lora_linear as Triton kernels: tiles, loops and masks. `kernel` launches them.

In y's product the left operand is the weight, (N, K) x (K, T), so that where it is decoded in the loop it goes to
Hopper's tensor cores from registers. Sums are in float32; any shape is masked, none is padded.
"""

import triton
import triton.language as tl

from sottovoce_kernels.quantized.kernel import load_tile, row_factor


@triton.jit
def pick(which, first, second, third, COUNT: tl.constexpr):
    """The argument of projection `which`; what COUNT rules out is not compiled."""
    chosen = first
    if COUNT > 1:  # noqa: SIM102
        if which == 1:
            chosen = second
    if COUNT > 2:  # noqa: SIM102
        if which == 2:
            chosen = third
    return chosen


@triton.jit
def tile_of(tile, row_tiles, columns, SWIZZLE: tl.constexpr):
    """Row and column of a tile, in bands of SWIZZLE rows."""
    band = SWIZZLE * columns
    top = tile // band * SWIZZLE
    height = tl.minimum(row_tiles - top, SWIZZLE)
    return top + tile % band % height, tile % band // height


@triton.jit
def narrow(
    x, matrix, out, T, K, R, x_stride, matrix_row, matrix_column, out_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out (T, R) = x (T, K) matrix (R, K)^T."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    rank = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, K, DEPTH):
        step = first + tl.arange(0, DEPTH)
        left = tl.load(
            x + row[:, None] * x_stride + step[None, :], mask=(row < T)[:, None] & (step < K)[None, :], other=0
        )
        right = tl.load(
            matrix + rank[None, :] * matrix_row + step.to(tl.int64)[:, None] * matrix_column,
            mask=(rank < R)[None, :] & (step < K)[:, None],
            other=0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    kept = (row < T)[:, None] & (rank < R)[None, :]
    tl.store(out + row[:, None] * out_stride + rank[None, :], total.to(out.dtype.element_ty), mask=kept)


@triton.jit
def project(
    x, s, w0, w1, w2, scales, codes, b, bias, y0, y1, y2, T, K, N0, N1, N2, ranks, stored, x_stride, s_stride, w_stride,
    KIND: tl.constexpr, BLOCK: tl.constexpr, COUNT: tl.constexpr, RANK_STEP: tl.constexpr,
    SWIZZLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y_i (T, N_i) = x W_i^T + S_i b_i^T + bias_i for COUNT projections. `scales`, `b` (N, ranks) and `bias` are those
    of all, one below the other; S_i begins at column i times `ranks` of `s`, which is None without adapters."""
    tiles1 = tl.cdiv(N0, COLUMNS) + (tl.cdiv(N1, COLUMNS) if COUNT > 1 else 0)
    tiles = tiles1 + (tl.cdiv(N2, COLUMNS) if COUNT > 2 else 0)
    row_tile, column_tile = tile_of(tl.program_id(0), tl.cdiv(T, ROWS), tiles, SWIZZLE)
    which = 0
    if COUNT > 1:
        which += (column_tile >= tl.cdiv(N0, COLUMNS)).to(tl.int32)
    if COUNT > 2:
        which += (column_tile >= tiles1).to(tl.int32)
    column_tile -= pick(which, 0, tl.cdiv(N0, COLUMNS), tiles1, COUNT)
    N = pick(which, N0, N1, N2, COUNT)
    before = pick(which, 0, N0, N0 + N1, COUNT)
    w = pick(which, w0, w1, w2, COUNT)
    y = pick(which, y0, y1, y2, COUNT)

    row = (row_tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = (column_tile * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    within, present = column < N, row < T
    if KIND == "nf4" or KIND == "q4_0":
        scales += before.to(tl.int64) * (2 * stored // BLOCK) if COUNT > 1 else 0
    total = tl.zeros((COLUMNS, ROWS), tl.float32)
    for first in range(0, K, DEPTH):
        step = first + tl.arange(0, DEPTH)
        left = load_tile(w, scales, codes, column, first, N, stored, w_stride, KIND, BLOCK, COLUMNS, DEPTH)
        right = tl.load(
            x + row[None, :] * x_stride + step[:, None], mask=present[None, :] & (step < K)[:, None], other=0
        )
        total = tl.dot(left.to(x.dtype.element_ty), right, total, input_precision=PRECISION)
    if KIND == "int8" or KIND == "fp8":
        total *= row_factor(scales, before + column, within, KIND)[:, None]
    if s is not None:
        for rank in tl.range(0, ranks, RANK_STEP, num_stages=1):
            step = rank + tl.arange(0, RANK_STEP)
            left = tl.load(b + (before + column)[:, None] * ranks + step[None, :], mask=within[:, None], other=0)
            right = tl.load(s + row[None, :] * s_stride + which * ranks + step[:, None], mask=present[None, :], other=0)
            total = tl.dot(left, right, total, input_precision=PRECISION)
    if bias is not None:
        total += tl.load(bias + before + column, mask=within, other=0).to(tl.float32)[:, None]
    out = y + row[None, :] * N + column[:, None]
    tl.store(out, total.to(y.dtype.element_ty), mask=within[:, None] & present[None, :])


@triton.jit
def input_gradient(
    dy0, dy1, dy2, w0, w1, w2, scales0, scales1, scales2, ds, a, dx, T, K, N0, N1, N2, stride0, stride1, stride2,
    ranks, ds_stride, a_stride, w_stride,
    KIND: tl.constexpr, COUNT: tl.constexpr, RANK_STEP: tl.constexpr, ADDS: tl.constexpr,
    SWIZZLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dx (T, K) = sum of dy_i W_i over COUNT projections + ds (T, ranks) a (ranks, K), on top of dx where ADDS."""
    row_tile, column_tile = tile_of(tl.program_id(0), tl.cdiv(T, ROWS), tl.cdiv(K, COLUMNS), SWIZZLE)
    row = (row_tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    begin = column_tile * COLUMNS
    column = begin + tl.arange(0, COLUMNS)
    within, present = (column < K)[None, :], (row < T)[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for which in range(COUNT):
        N, stride = pick(which, N0, N1, N2, COUNT), pick(which, stride0, stride1, stride2, COUNT)
        dy, w = pick(which, dy0, dy1, dy2, COUNT), pick(which, w0, w1, w2, COUNT)
        for first in range(0, N, DEPTH):
            step = (first + tl.arange(0, DEPTH)).to(tl.int64)
            left = tl.load(dy + row[:, None] * stride + step[None, :], mask=present & (step < N)[None, :], other=0)
            right = load_tile(w, None, None, step, begin, N, K, w_stride, KIND, 1, DEPTH, COLUMNS)
            if KIND != "dense":
                factor = row_factor(pick(which, scales0, scales1, scales2, COUNT), step, step < N, KIND)
                right = (right.to(tl.float32) * factor[:, None]).to(dx.dtype.element_ty)
            total = tl.dot(left, right, total, input_precision=PRECISION)
    if ds is not None:
        for rank in tl.range(0, ranks, RANK_STEP, num_stages=1):
            step = rank + tl.arange(0, RANK_STEP)
            ranked = step < ranks
            left = tl.load(ds + row[:, None] * ds_stride + step[None, :], mask=present & ranked[None, :], other=0)
            right = tl.load(a + step[:, None] * a_stride + column[None, :], mask=within & ranked[:, None], other=0)
            total = tl.dot(left, right, total, input_precision=PRECISION)
    out = dx + row[:, None] * K + column[None, :]
    if ADDS:
        total += tl.load(out, mask=within & present, other=0).to(tl.float32)
    tl.store(out, total.to(dx.dtype.element_ty), mask=within & present)


@triton.jit
def adapter_gradient(
    wide, slim, out, T, N, R, part, wide_stride, slim_stride, out_column, out_rank, out_part, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out (N, R) of each part of `part` rows = scale wide (rows, N)^T slim (rows, R). A tile has ROWS ranks."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    rank = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    begin = tl.program_id(2) * part
    total = tl.zeros((COLUMNS, ROWS), tl.float32)
    for first in range(begin, tl.minimum(begin + part, T), DEPTH):
        row = (first + tl.arange(0, DEPTH)).to(tl.int64)
        present = (row < T) & (row < begin + part)
        left = tl.load(
            wide + row[None, :] * wide_stride + column[:, None], mask=(column < N)[:, None] & present[None, :], other=0
        )
        right = tl.load(
            slim + row[:, None] * slim_stride + rank[None, :], mask=present[:, None] & (rank < R)[None, :], other=0
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    where = tl.program_id(2).to(tl.int64) * out_part + column[:, None] * out_column + rank[None, :] * out_rank
    tl.store(out + where, total * scale, mask=(column < N)[:, None] & (rank < R)[None, :])
