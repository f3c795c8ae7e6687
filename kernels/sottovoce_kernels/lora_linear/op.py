"""lora_linear as a differentiable function over whichever backend runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sottovoce_kernels.backend import Backend, choose
from sottovoce_kernels.quantized import QuantizedWeight

from . import reference
from .projection import Projection


def lora_linear(x: Tensor, projections: Sequence[Projection], *, backend: Backend | None = None) -> tuple[Tensor, ...]:
    """y_i = x W_i^T + bias_i + scale_i (x a_i^T) b_i^T for each projection, (..., N_i) in the dtype of `x` (..., K).

    Products are in the dtype of `x`, sums in float32 or wider; gradients go to `x` and to the adapters, theirs in their
    own dtype. Kept for the backward: `x`, and x a^T of all adapters, (rows, ranks). Raises ValueError for shapes and
    dtypes that do not go together and for a frozen tensor that requires a gradient, BackendError where `backend` cannot
    run.
    """
    for projection in projections:
        projection.check(x)
    frozen = tuple(replace(projection, a=None, b=None) for projection in projections)
    adapters = [tensor for projection in projections for tensor in (projection.a, projection.b)]
    chosen = _chosen(backend, x, frozen)
    outputs: tuple[Tensor, ...] = _LoraLinear.apply(x, _Frozen(frozen, chosen), *adapters)  # type: ignore[no-untyped-call]
    return outputs


@dataclass(frozen=True, slots=True, eq=False)
class _Frozen:
    """What is not differentiated: projections without their adapters, and who computes."""

    projections: tuple[Projection, ...]
    backend: Backend

    def with_adapters(self, adapters: Sequence[Tensor | None]) -> list[Projection]:
        """The projections whole: a and b of each, one behind the other."""
        pairs = zip(self.projections, adapters[::2], adapters[1::2], strict=True)
        return [replace(projection, a=a, b=b) for projection, a, b in pairs]


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: _Frozen, *adapters: Tensor | None) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        outputs, s = _implementation(frozen.backend).forward(rows, frozen.with_adapters(adapters))
        needs_a, needs_b = any(ctx.needs_input_grad[2::2]), any(ctx.needs_input_grad[3::2])
        ctx.save_for_backward(rows if needs_a else None, s if needs_b else None, *adapters)
        ctx.frozen, ctx.shape = frozen, x.shape
        ctx.set_materialize_grads(False)
        return tuple(y.view(*x.shape[:-1], y.shape[-1]) for y in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        if all(dy is None for dy in grads):
            return tuple(None for _ in ctx.needs_input_grad)
        x, s, *adapters = ctx.saved_tensors
        rows = [None if dy is None else dy.reshape(-1, dy.shape[-1]) for dy in grads]
        needs = list(zip(ctx.needs_input_grad[2::2], ctx.needs_input_grad[3::2], strict=True))
        dx, pairs = _implementation(ctx.frozen.backend).backward(
            rows, x, s, ctx.frozen.with_adapters(adapters), ctx.needs_input_grad[0], needs
        )
        parameters = (gradient for pair in pairs for gradient in pair)
        typed = [None if g is None else g.to(p.dtype) for g, p in zip(parameters, adapters, strict=True)]
        return None if dx is None else dx.view(ctx.shape), None, *typed


def _implementation(backend: Backend) -> ModuleType:
    if backend == "reference":
        return reference
    from sottovoce_kernels.lora_linear import kernel

    return kernel


def _chosen(backend: Backend | None, x: Tensor, projections: Sequence[Projection]) -> Backend:
    """Float64 has no tensor cores to feed: it stays with the reference on any device."""
    if backend is None and x.dtype == torch.float64:
        return "reference"
    weights = [p.weight.data if isinstance(p.weight, QuantizedWeight) else p.weight for p in projections]
    return choose(backend, x, *weights)
