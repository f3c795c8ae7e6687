"""The differentiable function over both implementations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sottovoce_kernels.backend import Backend, choose

from . import reference
from .chunks import Needs, Outcome
from .rule import IGNORED, Rule


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORED,
    softcap: float | None = None,
    chunk: int | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """The sum over labelled rows of the cross entropy of softmax(hidden weight^T + bias), a scalar in float32.

    `hidden` (T, W) and `weight` (V, W), trained or frozen, in one floating dtype; `bias` (V,); `labels` (T,) int64, of
    which `ignore_index` means none: such a row costs nothing and its gradient is zero. Who wants a mean divides by the
    number of labels. `chunk`: rows whose logits exist at a time, chosen where None. Losses, softmax and sums are
    computed in float32 from logits in the dtype of `hidden` (all in float64 where that is float64). Gradients are
    computed along with the loss, so under `torch.no_grad` half of the work is left out.

    Raises ValueError for shapes and dtypes that do not go together, a label that is neither in the vocabulary nor
    `ignore_index`, or a smoothing, softcap or chunk out of range.
    """
    _check(hidden, weight, labels, bias)
    rule = Rule(label_smoothing, softcap, ignore_index, chunk)
    chosen = choose(backend, hidden, weight, labels, bias)
    if not torch.is_grad_enabled():
        return _forward(chosen)(hidden, weight, labels, bias, rule, Needs()).loss
    function: Any = _LinearCrossEntropy
    loss: Tensor = function.apply(hidden, weight, bias, labels, rule, chosen)
    return loss


def _forward(backend: Backend) -> Callable[[Tensor, Tensor, Tensor, Tensor | None, Rule, Needs], Outcome]:
    if backend == "reference":
        return reference.forward
    from . import kernel

    return kernel.forward


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        rule: Rule,
        backend: Backend,
    ) -> Tensor:
        needs = Needs(*ctx.needs_input_grad[:3])
        outcome = _forward(backend)(hidden, weight, labels, bias, rule, needs)
        ctx.save_for_backward(outcome.kept, outcome.hidden, outcome.weight, outcome.bias)
        ctx.rows = len(hidden)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return outcome.loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        outcome = Outcome(grads[0], *ctx.saved_tensors)
        found = reference.backward(outcome, ctx.rows, grads[0])
        cast = (None if one is None else one.to(dtype) for one, dtype in zip(found, ctx.dtypes, strict=True))
        return (*cast, None, None, None)


def _check(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)}; they are (T, W) and (V, W)")
    if hidden.dtype != weight.dtype or not hidden.is_floating_point():
        raise ValueError(f"hidden of {hidden.dtype} and a weight of {weight.dtype}; cast one to the other's")
    if labels.shape != hidden.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"labels {tuple(labels.shape)} of {labels.dtype} for {len(hidden)} rows; they are ({len(hidden)},) of int64"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"a bias {tuple(bias.shape)} for a vocabulary of {len(weight)}; it is ({len(weight)},)")
