"""rope with a gradient."""

from types import ModuleType
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from sottovoce_kernels.backend import Backend, choose
from sottovoce_kernels.rope import reference


def rope(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    positions: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q (T, H, D) and k (T, Hk, D), each pair of values (i, i + width/2) turned by its token's angle i; width <= D.

    cos, sin (T, width/2) float32: a row a token; with `positions` (T,), integers, (n, width/2) from which they choose.
    They get no gradient. Results in the dtypes of q and k, computed in float32. Su et al. 2021 (arXiv 2104.09864),
    section 3.4.2.

    Raises ValueError for shapes that do not fit, BackendError for a backend that cannot run here.
    """
    _check(q, k, cos, sin, positions)
    implementation = _implementation(choose(backend, q, k, cos, sin, positions))
    turned_q, turned_k = _Rope.apply(q, k, cos, sin, positions, implementation)  # type: ignore[no-untyped-call]
    return turned_q, turned_k


def _check(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None
) -> None:
    if q.ndim != 3 or k.ndim != 3 or q.shape[0] != k.shape[0] or q.shape[2] != k.shape[2]:
        raise ValueError(f"q of shape {tuple(q.shape)} and k of shape {tuple(k.shape)}; (T, H, D) and (T, Hk, D) go")
    if cos.ndim != 2 or cos.shape != sin.shape or 2 * cos.shape[1] > q.shape[2]:
        raise ValueError(
            f"cos of shape {tuple(cos.shape)} and sin of shape {tuple(sin.shape)} for heads of {q.shape[2]} values"
        )
    rows = cos.shape[0] if positions is None else positions.numel()
    if rows != q.shape[0]:
        raise ValueError(f"angles of {rows} tokens for {q.shape[0]}")


def _implementation(backend: Backend) -> ModuleType:
    if backend == "reference":
        return reference
    from sottovoce_kernels.rope import kernel

    return kernel


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        positions: torch.Tensor | None,
        implementation: ModuleType,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin, positions)
        ctx.implementation = implementation
        turned_q, turned_k = implementation.forward(q, k, cos, sin, positions)
        return turned_q, turned_k

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_q: torch.Tensor, grad_k: torch.Tensor) -> tuple[Any, ...]:
        return *ctx.implementation.backward(grad_q, grad_k, *ctx.saved_tensors), None, None, None, None
