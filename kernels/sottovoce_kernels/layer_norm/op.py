"""layer_norm with a gradient."""

from types import ModuleType
from typing import Any, overload

import torch
from torch.autograd.function import once_differentiable

from sottovoce_kernels.backend import Backend, choose
from sottovoce_kernels.layer_norm import reference


@overload
def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    *,
    residual: None = None,
    backend: Backend | None = None,
) -> torch.Tensor: ...


@overload
def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    *,
    residual: torch.Tensor,
    backend: Backend | None = None,
) -> tuple[torch.Tensor, torch.Tensor]: ...


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    *,
    residual: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis, in x's dtype, computed in float32.

    x (..., W); weight, bias (W,), which get a gradient where they want one. With `residual`, of x's shape, it is the
    norm of x + residual, and the sum is returned beside it. Ba et al. 2016 (arXiv 1607.06450), section 3.

    Raises ValueError for shapes that do not fit, BackendError for a backend that cannot run here.
    """
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter.shape != x.shape[-1:]:
            raise ValueError(f"a {name} of shape {tuple(parameter.shape)} for rows of {x.shape[-1]} values")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"a residual of shape {tuple(residual.shape)} for x of shape {tuple(x.shape)}")
    implementation = _implementation(choose(backend, x, weight, bias, residual))
    y, total = _LayerNorm.apply(x, weight, bias, residual, eps, implementation)  # type: ignore[no-untyped-call]
    return y if residual is None else (y, total)


def _implementation(backend: Backend) -> ModuleType:
    if backend == "reference":
        return reference
    from sottovoce_kernels.layer_norm import kernel

    return kernel


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        residual: torch.Tensor | None,
        eps: float,
        implementation: ModuleType,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        width = x.shape[-1]
        rows = None if residual is None else residual.reshape(-1, width)
        y, total, statistics = implementation.forward(x.reshape(-1, width), weight, bias, eps, rows)
        total = x if residual is None else total.view(x.shape)
        ctx.save_for_backward(total, weight, bias, *statistics)
        ctx.implementation = implementation
        ctx.set_materialize_grads(False)
        return y.view(x.shape), None if residual is None else total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: torch.Tensor | None, grad_total: torch.Tensor | None) -> tuple[Any, ...]:
        if grad_y is None:
            return grad_total, None, None, grad_total, None, None
        total, weight, bias, *statistics = ctx.saved_tensors
        shape, width = total.shape, total.shape[-1]
        grad_x, grad_weight, grad_bias = ctx.implementation.backward(
            grad_y.reshape(-1, width),
            None if grad_total is None else grad_total.reshape(-1, width),
            total.reshape(-1, width),
            weight,
            bias,
            tuple(statistics),
            (ctx.needs_input_grad[1], ctx.needs_input_grad[2]),
        )
        grad_x = grad_x.view(shape)
        return grad_x, grad_weight, grad_bias, grad_x if ctx.needs_input_grad[3] else None, None, None
