"""geglu on a GPU, by the kernels that it shares."""

import torch

from sottovoce_kernels.gated import GELU_TANH
from sottovoce_kernels.gated_kernel import kernel_backward, kernel_forward


def forward(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """gelu(gate) * up; all (T, N) in one dtype."""
    return kernel_forward(GELU_TANH, gate, up)


def backward(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, (T, N) each."""
    return kernel_backward(GELU_TANH, grad, gate, up)
