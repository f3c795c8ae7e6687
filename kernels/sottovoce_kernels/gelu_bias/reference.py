"""gelu_bias in plain torch; the CPU's path. Keeps x, computes x + bias anew."""

import torch

from sottovoce_kernels.rows import chunks, wide

aten = torch.ops.aten


def forward(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """gelu(x + bias), (T, N) in x's dtype; x (T, N), bias (N,)."""
    y = x.new_empty(x.shape)
    if bias is None:
        aten.gelu.out(x, out=y)
        return y
    for rows in chunks(x):
        aten.gelu.out(torch.add(x[rows], bias, out=y[rows]), out=y[rows])
    return y


def backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, bias_wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of x and, where it is wanted, of the bias, which is added up in float32."""
    grad_x = x.new_empty(x.shape)
    if bias is None:
        aten.gelu_backward.grad_input(grad, x, grad_input=grad_x)
        return grad_x, None
    grad_bias = x.new_zeros(x.shape[1], dtype=wide(x.dtype)) if bias_wanted else None
    for rows in chunks(x):
        here = torch.add(x[rows], bias, out=grad_x[rows])
        aten.gelu_backward.grad_input(grad[rows], here, grad_input=here)
        if grad_bias is not None:
            grad_bias += here.sum(0, dtype=grad_bias.dtype)
    return grad_x, None if grad_bias is None else grad_bias.to(bias.dtype)
