# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""layer_norm on a GPU: one pass over x forward, one over x and g backward, several narrow rows a program.

Gradients of weight and bias are added up in two stages: each program over its rows in float32, then over the programs.
"""

import torch
import triton
import triton.language as tl

from sottovoce_kernels.layer_norm.reference import Statistics
from sottovoce_kernels.tiles import programs, tile_for, unit_stride


@triton.jit
def layer_norm_forward(
    x, residual, weight, bias, y, total, mean, scale, T, W, x_stride, residual_stride, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    mask = (row < T) & (column < W)
    values = tl.load(x + row * x_stride + column, mask=mask, other=0.0).to(tl.float32)
    if residual is not None:
        values += tl.load(residual + row * residual_stride + column, mask=mask, other=0.0).to(tl.float32)
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + row * W + column, rounded, mask=mask)
        values = rounded.to(tl.float32)
    center = tl.sum(values, 1, keep_dims=True) / W
    values = tl.where(mask, values - center, 0.0)
    r = tl.rsqrt(tl.sum(values * values, 1, keep_dims=True) / W + eps)
    factor = tl.load(weight + column, mask=column < W, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=column < W, other=0.0).to(tl.float32)
    tl.store(y + row * W + column, (values * r * factor + shift).to(y.dtype.element_ty), mask=mask)
    tl.store(mean + row, center, mask=row < T)
    tl.store(scale + row, r, mask=row < T)


@triton.jit
def layer_norm_backward(
    grad_y, grad_total, total, weight, mean, scale, grad_x, weight_partial, bias_partial, T, W,
    total_stride, y_stride, grad_total_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)[None, :]
    factor = tl.load(weight + column, mask=column < W, other=0.0).to(tl.float32)
    weight_pull = tl.zeros((ROWS, BLOCK), tl.float32)
    bias_pull = tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(T, ROWS), tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        mask = (row < T) & (column < W)
        values = tl.load(total + row * total_stride + column, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_y + row * y_stride + column, mask=mask, other=0.0).to(tl.float32)
        center = tl.load(mean + row, mask=row < T, other=0.0)
        r = tl.load(scale + row, mask=row < T, other=0.0)
        normed = tl.where(mask, (values - center) * r, 0.0)
        if weight_partial is not None:
            weight_pull += grad * normed
        if bias_partial is not None:
            bias_pull += grad
        grad *= factor
        along, level = tl.sum(grad * normed, 1, keep_dims=True) / W, tl.sum(grad, 1, keep_dims=True) / W
        result = (grad - level - normed * along) * r
        if grad_total is not None:
            result += tl.load(grad_total + row * grad_total_stride + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_x + row * W + column, result.to(grad_x.dtype.element_ty), mask=mask)
    if weight_partial is not None:
        sums = tl.sum(weight_pull, 0, keep_dims=True)
        tl.store(weight_partial + tl.program_id(0) * W + column, sums, mask=column < W)
    if bias_partial is not None:
        sums = tl.sum(bias_pull, 0, keep_dims=True)
        tl.store(bias_partial + tl.program_id(0) * W + column, sums, mask=column < W)


def forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, residual: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, Statistics]:
    """As the reference's."""
    x, (rows, width) = unit_stride(x), x.shape
    tile = tile_for(width)
    y, total = x.new_empty(x.shape), x
    mean, scale = (x.new_empty((rows, 1), dtype=torch.float32) for _ in range(2))
    if residual is not None:
        residual, total = unit_stride(residual), x.new_empty(x.shape)
    if rows:
        layer_norm_forward[(tile.count(rows),)](
            x, residual, weight, bias, y, total, mean, scale, rows, width, x.stride(0),
            0 if residual is None else residual.stride(0), eps, **tile.options,
        )  # fmt: skip
    return y, total, (mean, scale)


def backward(
    grad_y: torch.Tensor,
    grad_total: torch.Tensor | None,
    total: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    statistics: Statistics,
    wanted: tuple[bool, bool],
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """As the reference's."""
    grad_y, total, (rows, width) = unit_stride(grad_y), unit_stride(total), total.shape
    grad_total = None if grad_total is None else unit_stride(grad_total)
    tile = tile_for(width, backward=True)
    count = tile.count(rows)
    grid = programs(total.device, count) if any(wanted) else count
    grad_x = total.new_empty(total.shape)
    partials = [total.new_zeros((grid, width), dtype=torch.float32) if one else None for one in wanted]
    if rows:
        layer_norm_backward[(grid,)](
            grad_y, grad_total, total, weight, *statistics, grad_x, *partials, rows, width, total.stride(0),
            grad_y.stride(0), 0 if grad_total is None else grad_total.stride(0), **tile.options,
        )  # fmt: skip
    of_weight, of_bias = (
        None if partial is None else partial.sum(0).to(parameter.dtype)
        for partial, parameter in zip(partials, (weight, bias), strict=True)
    )
    return grad_x, of_weight, of_bias
