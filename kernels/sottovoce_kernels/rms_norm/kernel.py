# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""rms_norm on a GPU: one pass over x forward, one over x and g backward, several narrow rows a program.

The weight's gradient is added up in two stages: each program over its rows in float32, then over the programs.
"""

import torch
import triton
import triton.language as tl

from sottovoce_kernels.tiles import programs, tile_for, unit_stride


@triton.jit
def rms_norm_forward(
    x,
    residual,
    weight,
    y,
    total,
    scale,
    T,
    W,
    x_stride,
    residual_stride,
    eps,
    offset,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    mask = (row < T) & (column < W)
    values = tl.load(x + row * x_stride + column, mask=mask, other=0.0).to(tl.float32)
    if residual is not None:
        values += tl.load(residual + row * residual_stride + column, mask=mask, other=0.0).to(tl.float32)
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + row * W + column, rounded, mask=mask)
        values = rounded.to(tl.float32)
    r = tl.rsqrt(tl.sum(values * values, 1, keep_dims=True) / W + eps)
    factor = tl.load(weight + column, mask=column < W, other=0.0).to(tl.float32) + offset
    tl.store(y + row * W + column, (values * r * factor).to(y.dtype.element_ty), mask=mask)
    tl.store(scale + row, r, mask=row < T)


@triton.jit
def rms_norm_backward(
    grad_y, grad_total, total, weight, scale, grad_x, partial, T, W, total_stride, y_stride, grad_total_stride, offset,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)[None, :]
    factor = tl.load(weight + column, mask=column < W, other=0.0).to(tl.float32) + offset
    pulled = tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(T, ROWS), tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        mask = (row < T) & (column < W)
        values = tl.load(total + row * total_stride + column, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_y + row * y_stride + column, mask=mask, other=0.0).to(tl.float32)
        r = tl.load(scale + row, mask=row < T, other=0.0)
        normed = values * r
        if partial is not None:
            pulled += grad * normed
        grad *= factor
        result = (grad - normed * (tl.sum(grad * normed, 1, keep_dims=True) / W)) * r
        if grad_total is not None:
            result += tl.load(grad_total + row * grad_total_stride + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_x + row * W + column, result.to(grad_x.dtype.element_ty), mask=mask)
    if partial is not None:
        sums = tl.sum(pulled, 0, keep_dims=True)
        tl.store(partial + tl.program_id(0) * W + column, sums, mask=column < W)


def forward(
    x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, residual: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As the reference's."""
    x, (rows, width) = unit_stride(x), x.shape
    tile = tile_for(width)
    y = x.new_empty(x.shape)
    scale = x.new_empty(rows, dtype=torch.float32)
    total = x
    if residual is not None:
        residual, total = unit_stride(residual), x.new_empty(x.shape)
    if rows:
        rms_norm_forward[(tile.count(rows),)](
            x, residual, weight, y, total, scale, rows, width, x.stride(0),
            0 if residual is None else residual.stride(0), eps, offset, **tile.options,
        )  # fmt: skip
    return y, total, scale


def backward(
    grad_y: torch.Tensor,
    grad_total: torch.Tensor | None,
    total: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    offset: float,
    weight_wanted: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As the reference's."""
    grad_y, total, (rows, width) = unit_stride(grad_y), unit_stride(total), total.shape
    grad_total = None if grad_total is None else unit_stride(grad_total)
    tile = tile_for(width, backward=True)
    count = tile.count(rows)
    grid = programs(total.device, count) if weight_wanted else count
    grad_x = total.new_empty(total.shape)
    partial = total.new_zeros((grid, width), dtype=torch.float32) if weight_wanted else None
    if rows:
        rms_norm_backward[(grid,)](
            grad_y, grad_total, total, weight, scale, grad_x, partial, rows, width, total.stride(0), grad_y.stride(0),
            0 if grad_total is None else grad_total.stride(0), offset, **tile.options,
        )  # fmt: skip
    return grad_x, None if partial is None else partial.sum(0).to(weight.dtype)
