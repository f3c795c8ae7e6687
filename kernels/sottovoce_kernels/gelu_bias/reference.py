"""gelu_bias in plain torch, over its own fused kernels; the CPU's path. Keeps x, computes x + bias anew.

Sums are written where the result will be, so that there is no other memory than the result's.
"""

import torch

from sottovoce_kernels.rows import wide

aten = torch.ops.aten


def forward(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """gelu(x + bias), (T, N) in x's dtype; x (T, N), bias (N,)."""
    y = x.new_empty(x.shape)
    aten.gelu.out(x if bias is None else torch.add(x, bias, out=y), out=y)
    return y


def backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, bias_wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of x and, where it is wanted, of the bias, which is added up in float32."""
    grad_x = x.new_empty(x.shape)
    aten.gelu_backward.grad_input(grad, x if bias is None else torch.add(x, bias, out=grad_x), grad_input=grad_x)
    if bias is None or not bias_wanted:
        return grad_x, None
    return grad_x, grad_x.sum(0, dtype=wide(x.dtype)).to(bias.dtype)
