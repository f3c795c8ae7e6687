"""geglu in plain torch; the CPU's path. gelu's tanh approximation by the sigmoid, at half the cost of a tanh.

Keeps gate and up alone.
"""

import torch

from sottovoce_kernels.gated import GELU_TANH
from sottovoce_kernels.rows import buffers, chunks


def forward(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """gelu(gate) * up; all (T, N) in one dtype. Computed in float32, float64 in float64."""
    y, work = gate.new_empty(gate.shape), buffers(gate, 3)
    for rows in chunks(gate):
        x, s, factor = work[:, : rows.stop - rows.start]
        _sigmoid(x.copy_(gate[rows]), s)
        y[rows] = x.mul_(s).mul_(_widened(up[rows], factor))
    return y


def backward(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, (T, N) each."""
    grad_gate, grad_up = gate.new_empty(gate.shape), gate.new_empty(gate.shape)
    work = buffers(gate, 4)
    for rows in chunks(gate):
        x, s, slope, other = work[:, : rows.stop - rows.start]
        _sigmoid(x.copy_(gate[rows]), s)
        torch.mul(x, x, out=slope).mul_(3 * GELU_TANH.cubic).add_(GELU_TANH.linear)
        activated = x.mul_(s)
        slope.mul_(torch.sub(1.0, s, out=other)).mul_(activated).add_(s)  # a' = s + a (1 - s) u'
        incoming = _widened(grad[rows], other)
        grad_up[rows] = activated.mul_(incoming)
        grad_gate[rows] = slope.mul_(incoming).mul_(_widened(up[rows], s))
    return grad_gate, grad_up


def _sigmoid(x: torch.Tensor, out: torch.Tensor) -> None:
    """sigmoid(u(x)) into `out`."""
    torch.mul(x, x, out=out).mul_(GELU_TANH.cubic).add_(GELU_TANH.linear).mul_(x).sigmoid_()


def _widened(values: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """The values in the buffer's dtype, in the buffer; themselves where that is theirs."""
    return values if values.dtype == buffer.dtype else buffer.copy_(values)
