# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""gelu_bias on a GPU: one pass forward, one backward, in float32, rounded once.

The bias's gradient is added up in two stages: each program over its rows in float32, then over the programs.
"""

import torch
import triton
import triton.language as tl

from sottovoce_kernels.tiles import programs, unit_stride

# A tile: 8 values a thread in a row, 2 rows a thread. Blocks of columns lie side by side in the grid.
ROWS, BLOCK, WARPS = 8, 256, 4


@triton.jit
def gelu(x):
    """gelu(x) and its derivative."""
    below = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    return x * below, below + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)


@triton.jit
def gelu_bias_forward(x, bias, y, T, N, x_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    mask = (row < T) & (column < N)
    values = tl.load(x + row * x_stride + column, mask=mask, other=0.0).to(tl.float32)
    if bias is not None:
        values += tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)
    result, _ = gelu(values)
    tl.store(y + row * N + column, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def gelu_bias_backward(
    grad, x, bias, grad_x, partial, T, N, grad_stride, x_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    shift = tl.zeros((1, BLOCK), tl.float32)
    if bias is not None:
        shift = tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)
    pulled = tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(T, ROWS), tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        mask = (row < T) & (column < N)
        values = tl.load(x + row * x_stride + column, mask=mask, other=0.0).to(tl.float32) + shift
        incoming = tl.load(grad + row * grad_stride + column, mask=mask, other=0.0).to(tl.float32)
        _, slope = gelu(values)
        result = incoming * slope
        if partial is not None:
            pulled += result
        tl.store(grad_x + row * N + column, result.to(grad_x.dtype.element_ty), mask=mask)
    if partial is not None:
        sums = tl.sum(pulled, 0, keep_dims=True)
        tl.store(partial + tl.program_id(0) * N + column, sums, mask=column < N)


def forward(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """As the reference's."""
    x, (rows, width) = unit_stride(x), x.shape
    y = x.new_empty(x.shape)
    if y.numel():
        grid = (triton.cdiv(rows, ROWS), triton.cdiv(width, BLOCK))
        gelu_bias_forward[grid](
            x, bias, y, rows, width, x.stride(0), ROWS=ROWS, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=True
        )
    return y


def backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, bias_wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As the reference's."""
    grad, x, (rows, width) = unit_stride(grad), unit_stride(x), x.shape
    tiles, columns = triton.cdiv(rows, ROWS), triton.cdiv(width, BLOCK)
    down = triton.cdiv(programs(x.device, tiles * columns), columns) if bias_wanted and columns else tiles
    grad_x = x.new_empty(x.shape)
    partial = x.new_zeros((min(down, tiles), width), dtype=torch.float32) if bias_wanted else None
    if grad_x.numel():
        gelu_bias_backward[(min(down, tiles), columns)](
            grad, x, bias, grad_x, partial, rows, width, grad.stride(0), x.stride(0),
            ROWS=ROWS, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return grad_x, None if partial is None or bias is None else partial.sum(0).to(bias.dtype)
