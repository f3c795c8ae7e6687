"""What swiglu and geglu have in common: an activation of one half of a projection times the other half.

Both activations are a(x) = x sigmoid(u(x)), with u(x) = x for silu and, since (1 + tanh(z)) / 2 = sigmoid(2 z), with
u(x) = 2 sqrt(2 / pi) (x + 0.044715 x^3) for gelu in its tanh approximation. With s = sigmoid(u) and the incoming
gradient g:

    y = a(gate) up
    dgate = g up (s + a (1 - s) u'),   dup = g a(gate)

Only gate and up are kept, the activation is computed anew. Knows no operation by name.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, slots=True)
class Curve:
    """u(x) = linear x + cubic x^3."""

    linear: float
    cubic: float


SILU = Curve(1.0, 0.0)
GELU_TANH = Curve(1.5957691216057308, 0.07135481282671106)  # 2 sqrt(2 / pi), and 0.044715 of it


class Implementation(Protocol):
    """A reference or a kernel."""

    def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """gate, up (T, N) -> (T, N)."""

    def backward(self, grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of gate and up."""


def gated(gate: torch.Tensor, up: torch.Tensor, implementation: Implementation) -> torch.Tensor:
    """The operation with a gradient; gate, up and the result (..., N).

    Raises ValueError for two shapes or dtypes.
    """
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(
            f"gate of shape {tuple(gate.shape)} in {gate.dtype} and up of shape {tuple(up.shape)} in {up.dtype}; "
            "they have to be alike"
        )
    y: torch.Tensor = _Gated.apply(gate, up, implementation)  # type: ignore[no-untyped-call]
    return y


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, implementation: Implementation) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.implementation = implementation
        width = gate.shape[-1]
        return implementation.forward(gate.reshape(-1, width), up.reshape(-1, width)).view(gate.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        gate, up = ctx.saved_tensors
        shape, width = gate.shape, gate.shape[-1]
        rows = (x.reshape(-1, width) for x in (grad, gate, up))
        grad_gate, grad_up = ctx.implementation.backward(*rows)
        return grad_gate.view(shape), grad_up.view(shape), None
