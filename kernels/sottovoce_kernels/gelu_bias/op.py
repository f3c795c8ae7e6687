"""gelu_bias with a gradient."""

from types import ModuleType
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from sottovoce_kernels.backend import Backend, choose
from sottovoce_kernels.gelu_bias import reference


def gelu_bias(x: torch.Tensor, bias: torch.Tensor | None = None, *, backend: Backend | None = None) -> torch.Tensor:
    """gelu(x + bias) with the exact gelu, in x's dtype: the activation of Whisper's feed-forward.

    x and the result (..., N); bias (N,) in x's dtype, which gets a gradient where it wants one. For the backward x is
    kept, and not the sum. Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.

    Raises ValueError for a bias of another shape or dtype, BackendError for a backend that cannot run here.
    """
    if bias is not None and (bias.shape != x.shape[-1:] or bias.dtype != x.dtype):
        raise ValueError(
            f"a bias of shape {tuple(bias.shape)} in {bias.dtype} for rows of {x.shape[-1]} values in {x.dtype}"
        )
    implementation = _implementation(choose(backend, x, bias))
    y: torch.Tensor = _GeluBias.apply(x, bias, implementation)  # type: ignore[no-untyped-call]
    return y


def _implementation(backend: Backend) -> ModuleType:
    if backend == "reference":
        return reference
    from sottovoce_kernels.gelu_bias import kernel

    return kernel


class _GeluBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, implementation: ModuleType) -> torch.Tensor:
        ctx.save_for_backward(x, bias)
        ctx.implementation = implementation
        y: torch.Tensor = implementation.forward(x.reshape(-1, x.shape[-1]), bias).view(x.shape)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        x, bias = ctx.saved_tensors
        width = x.shape[-1]
        grad_x, grad_bias = ctx.implementation.backward(
            grad.reshape(-1, width), x.reshape(-1, width), bias, ctx.needs_input_grad[1]
        )
        return grad_x.view(x.shape), grad_bias, None
