"""rms_norm with a gradient."""

from types import ModuleType
from typing import Any, overload

import torch
from torch.autograd.function import once_differentiable

from sottovoce_kernels.backend import Backend, choose
from sottovoce_kernels.rms_norm import reference


@overload
def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    residual: None = None,
    offset: float = 0.0,
    backend: Backend | None = None,
) -> torch.Tensor: ...


@overload
def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    residual: torch.Tensor,
    offset: float = 0.0,
    backend: Backend | None = None,
) -> tuple[torch.Tensor, torch.Tensor]: ...


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    residual: torch.Tensor | None = None,
    offset: float = 0.0,
    backend: Backend | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """x / sqrt(mean(x^2) + eps) * (weight + offset) over the last axis, in x's dtype, computed in float32.

    x (..., W); weight (W,), which gets a gradient where it wants one; offset 1.0 is Gemma's. With `residual`, of x's
    shape, it is the norm of x + residual, and the sum is returned beside it. Zhang and Sennrich 2019 (arXiv
    1910.07467), section 3.

    Raises ValueError for shapes that do not fit, BackendError for a backend that cannot run here.
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} for rows of {x.shape[-1]} values")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"a residual of shape {tuple(residual.shape)} for x of shape {tuple(x.shape)}")
    implementation = _implementation(choose(backend, x, weight, residual))
    y, total = _RmsNorm.apply(x, weight, residual, eps, offset, implementation)  # type: ignore[no-untyped-call]
    return y if residual is None else (y, total)


def _implementation(backend: Backend) -> ModuleType:
    if backend == "reference":
        return reference
    from sottovoce_kernels.rms_norm import kernel

    return kernel


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        residual: torch.Tensor | None,
        eps: float,
        offset: float,
        implementation: ModuleType,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        width = x.shape[-1]
        rows = None if residual is None else residual.reshape(-1, width)
        y, total, scale = implementation.forward(x.reshape(-1, width), weight, eps, offset, rows)
        total = x if residual is None else total.view(x.shape)
        ctx.save_for_backward(total, weight, scale)
        ctx.offset, ctx.implementation = offset, implementation
        ctx.set_materialize_grads(False)
        return y.view(x.shape), None if residual is None else total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: torch.Tensor | None, grad_total: torch.Tensor | None) -> tuple[Any, ...]:
        if grad_y is None:
            return grad_total, None, grad_total, None, None, None
        total, weight, scale = ctx.saved_tensors
        shape, width = total.shape, total.shape[-1]
        grad_x, grad_weight = ctx.implementation.backward(
            grad_y.reshape(-1, width),
            None if grad_total is None else grad_total.reshape(-1, width),
            total.reshape(-1, width),
            weight,
            scale,
            ctx.offset,
            ctx.needs_input_grad[1],
        )
        grad_x = grad_x.view(shape)
        return grad_x, grad_weight, grad_x if ctx.needs_input_grad[2] else None, None, None, None
