"""gelu_bias in plain torch; the CPU's path. Keeps x, computes x + bias anew."""

import torch
from torch.nn import functional

from sottovoce_kernels.rows import chunks, wide


def forward(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """gelu(x + bias), (T, N) in x's dtype; x (T, N), bias (N,)."""
    y = x.new_empty(x.shape)
    for rows in chunks(x):
        y[rows] = functional.gelu(_sum(x[rows], bias))
    return y


def backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, bias_wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of x and, where it is wanted, of the bias, which is added up in float32."""
    grad_x = x.new_empty(x.shape)
    grad_bias = x.new_zeros(x.shape[1], dtype=wide(x.dtype)) if bias_wanted else None
    for rows in chunks(x):
        here = torch.ops.aten.gelu_backward(grad[rows], _sum(x[rows], bias))
        grad_x[rows] = here
        if grad_bias is not None:
            grad_bias += here.sum(0, dtype=grad_bias.dtype)
    return grad_x, None if grad_bias is None or bias is None else grad_bias.to(bias.dtype)


def _sum(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x if bias is None else x + bias
