# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""swiglu on a GPU: one pass forward, one backward, in float32, rounded once."""

import torch
import triton
import triton.language as tl

from sottovoce_kernels.elementwise import blocks
from sottovoce_kernels.tiles import unit_stride


@triton.jit
def silu(x):
    """silu(x) and its derivative."""
    s = tl.sigmoid(x)
    return x * s, s * (1.0 + x * (1.0 - s))


@triton.jit
def swiglu_forward(gate, up, y, N, per_row, gate_stride, up_stride, y_stride, BLOCK: tl.constexpr):
    row = (tl.program_id(0) // per_row).to(tl.int64)
    column = (tl.program_id(0) % per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = column < N
    activated, _ = silu(tl.load(gate + row * gate_stride + column, mask=mask, other=0.0).to(tl.float32))
    result = activated * tl.load(up + row * up_stride + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + row * y_stride + column, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def swiglu_backward(
    grad, gate, up, grad_gate, grad_up, N, per_row, grad_stride, gate_stride, up_stride, out_stride, _,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) // per_row).to(tl.int64)
    column = (tl.program_id(0) % per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = column < N
    incoming = tl.load(grad + row * grad_stride + column, mask=mask, other=0.0).to(tl.float32)
    activated, slope = silu(tl.load(gate + row * gate_stride + column, mask=mask, other=0.0).to(tl.float32))
    factor = tl.load(up + row * up_stride + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(
        grad_gate + row * out_stride + column, (incoming * factor * slope).to(grad_gate.dtype.element_ty), mask=mask
    )
    tl.store(grad_up + row * out_stride + column, (incoming * activated).to(grad_up.dtype.element_ty), mask=mask)


def forward(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """As the reference's."""
    gate, up = unit_stride(gate), unit_stride(up)
    y = gate.new_empty(gate.shape)
    cut = blocks((gate, up, y))
    if cut.rows:
        swiglu_forward[cut.grid](gate, up, y, cut.width, cut.per_row, *cut.strides, **cut.options)
    return y


def backward(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference's."""
    grad, gate, up = unit_stride(grad), unit_stride(gate), unit_stride(up)
    grad_gate, grad_up = gate.new_empty(gate.shape), gate.new_empty(gate.shape)
    tensors = (grad, gate, up, grad_gate, grad_up)
    cut = blocks(tensors)
    if cut.rows:
        swiglu_backward[cut.grid](*tensors, cut.width, cut.per_row, *cut.strides, **cut.options)
    return grad_gate, grad_up
