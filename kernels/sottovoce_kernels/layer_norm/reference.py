"""layer_norm in plain torch, over its own fused kernels; the CPU's path. Keeps two numbers a row beside its input."""

from typing import cast

import torch

from sottovoce_kernels.rows import wide

Statistics = tuple[torch.Tensor, torch.Tensor]


def forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, residual: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, Statistics]:
    """y, x + residual (x itself without one), both (T, W) in x's dtype; mean and 1 / sqrt(variance + eps), (T, 1).

    x, residual (T, W); weight, bias (W,). Computed in float32, float64 in float64.
    """
    total = x if residual is None else x + residual
    y, mean, scale = torch.native_layer_norm(total, weight.shape, *_parameters(weight, bias, x.dtype), eps)
    return y, total, (mean, scale)


def backward(
    grad_y: torch.Tensor,
    grad_total: torch.Tensor | None,
    total: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    statistics: Statistics,
    wanted: tuple[bool, bool],
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of x (that of the residual is the same) and, where they are `wanted`, of weight and bias.

    `grad_total`: of the second output, None where nothing came. `total`, `statistics`: what `forward` gave.
    """
    found = torch.ops.aten.native_layer_norm_backward(
        grad_y, total, weight.shape, *statistics, *_parameters(weight, bias, total.dtype), (True, *wanted)
    )
    grad_x, grad_weight, grad_bias = cast(tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None], found)
    if grad_total is not None:
        grad_x.add_(grad_total)
    return (
        grad_x,
        None if grad_weight is None else grad_weight.to(weight.dtype),
        None if grad_bias is None else grad_bias.to(bias.dtype),
    )


def _parameters(weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in what is computed in: with parameters in half precision, torch would keep its statistics in it too."""
    return weight.to(wide(dtype)), bias.to(wide(dtype))
