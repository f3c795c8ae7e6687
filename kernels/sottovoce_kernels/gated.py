"""What swiglu and geglu have in common: an activation of one half of a projection times the other half.

With a the activation, y = a(gate) up; its gradients are dgate = g up a'(gate) and dup = g a(gate). Only gate and up are
kept, the activation is computed anew. Knows neither activation.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable

from sottovoce_kernels.rows import chunks

Activation = Callable[[torch.Tensor], torch.Tensor]
Derivative = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # incoming gradient, input -> gradient of the input


class Implementation(Protocol):
    """A reference or a kernel."""

    def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """gate, up (T, N) -> (T, N)."""

    def backward(self, grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of gate and up."""


def reference_forward(activation: Activation, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """activation(gate) * up, (T, N), a few rows at a time."""
    y = gate.new_empty(gate.shape)
    for rows in chunks(gate):
        torch.mul(activation(gate[rows]), up[rows], out=y[rows])
    return y


def reference_backward(
    activation: Activation, derivative: Derivative, grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, (T, N) each."""
    grad_gate, grad_up = gate.new_empty(gate.shape), gate.new_empty(gate.shape)
    for rows in chunks(gate):
        torch.mul(grad[rows], activation(gate[rows]), out=grad_up[rows])
        grad_gate[rows] = derivative(grad[rows] * up[rows], gate[rows])
    return grad_gate, grad_up


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
