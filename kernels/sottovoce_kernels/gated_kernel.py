# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""swiglu and geglu on a GPU: one pass forward, one backward, in float32, rounded once. The formulas are in gated.py."""

import torch
import triton
import triton.language as tl

from sottovoce_kernels.elementwise import blocks
from sottovoce_kernels.gated import Curve
from sottovoce_kernels.tiles import unit_stride


@triton.jit
def gated_forward(
    gate, up, y, N, per_row, gate_stride, up_stride, y_stride,
    LINEAR: tl.constexpr, CUBIC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) // per_row).to(tl.int64)
    column = (tl.program_id(0) % per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = column < N
    x = tl.load(gate + row * gate_stride + column, mask=mask, other=0.0).to(tl.float32)
    factor = tl.load(up + row * up_stride + column, mask=mask, other=0.0).to(tl.float32)
    result = x * tl.sigmoid(x * (LINEAR + CUBIC * x * x)) * factor
    tl.store(y + row * y_stride + column, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def gated_backward(
    grad, gate, up, grad_gate, grad_up, N, per_row, grad_stride, gate_stride, up_stride, grad_gate_stride,
    grad_up_stride, LINEAR: tl.constexpr, CUBIC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) // per_row).to(tl.int64)
    column = (tl.program_id(0) % per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = column < N
    incoming = tl.load(grad + row * grad_stride + column, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(gate + row * gate_stride + column, mask=mask, other=0.0).to(tl.float32)
    factor = tl.load(up + row * up_stride + column, mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(x * (LINEAR + CUBIC * x * x))
    of_gate = incoming * factor * (s + x * s * (1.0 - s) * (LINEAR + 3.0 * CUBIC * x * x))
    tl.store(grad_gate + row * grad_gate_stride + column, of_gate.to(grad_gate.dtype.element_ty), mask=mask)
    tl.store(grad_up + row * grad_up_stride + column, (incoming * x * s).to(grad_up.dtype.element_ty), mask=mask)


def kernel_forward(curve: Curve, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """gate sigmoid(u(gate)) up; all (T, N) in one dtype."""
    gate, up = unit_stride(gate), unit_stride(up)
    y = gate.new_empty(gate.shape)
    cut = blocks((gate, up, y))
    if cut.rows:
        gated_forward[cut.grid](
            gate, up, y, cut.width, cut.per_row, *cut.strides, LINEAR=curve.linear, CUBIC=curve.cubic, **cut.options
        )
    return y


def kernel_backward(
    curve: Curve, grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, (T, N) each."""
    grad, gate, up = unit_stride(grad), unit_stride(gate), unit_stride(up)
    grad_gate, grad_up = gate.new_empty(gate.shape), gate.new_empty(gate.shape)
    tensors = (grad, gate, up, grad_gate, grad_up)
    cut = blocks(tensors)
    if cut.rows:
        gated_backward[cut.grid](
            *tensors, cut.width, cut.per_row, *cut.strides, LINEAR=curve.linear, CUBIC=curve.cubic, **cut.options
        )
    return grad_gate, grad_up
