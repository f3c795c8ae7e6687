"""geglu in plain torch; the CPU's path. Rounds the activation to the inputs' dtype before the product, which on a CPU
is twice as fast as float32 throughout and what other frameworks do.
"""

import torch
from torch.nn import functional

from sottovoce_kernels.gated import reference_backward, reference_forward


def forward(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """gelu(gate) * up, (T, N) in the inputs' dtype."""
    return reference_forward(_activation, gate, up)


def backward(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, (T, N) each."""
    return reference_backward(_activation, _derivative, grad, gate, up)


def _activation(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")


def _derivative(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
    return found
