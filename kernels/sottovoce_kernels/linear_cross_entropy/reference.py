"""linear_cross_entropy in plain torch: what a CPU runs, and what the kernel is held against.

    dloss/dx_v = (softmax(z)_v - (1 - e) [v = y] - e / V) (1 - (z_v / softcap)^2)

A product of a whole chunk and elementwise work on a few rows of it at a time: those few are widened to float32, stay in
the cache of a core until their gradient is done, and are narrowed to the dtype of the logits once. What is left of the
time are the two products.
"""

import torch
from torch import Tensor

from . import chunks
from .chunks import Needs, Outcome, wide
from .rule import Rule

BLOCK_BYTES = 3 * 2**19  # of widened logits: what the second caches of two cores hold, with room to spare


def forward(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, rule: Rule, needs: Needs) -> Outcome:
    """The loss and its gradients, as `chunks.forward` says; any floating dtype."""
    return chunks.forward(differentiate, hidden, weight, labels, bias, rule, needs)


def backward(outcome: Outcome, rows: int, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden (rows, W), weight and bias for a loss whose own gradient is `grad`, a scalar."""
    hidden = None if outcome.hidden is None else outcome.hidden * grad
    if hidden is not None and outcome.kept is not None:
        hidden = hidden.new_zeros(rows, hidden.shape[1]).index_copy_(0, outcome.kept, hidden)
    weight = None if outcome.weight is None else outcome.weight * grad
    return hidden, weight, None if outcome.bias is None else outcome.bias * grad


def differentiate(logits: Tensor, labels: Tensor, bias: Tensor | None, rule: Rule, wanted: bool) -> Tensor:
    """As `chunks.Differentiate` says."""
    rows = max(BLOCK_BYTES // (logits.shape[1] * wide(logits.dtype).itemsize), 1)
    losses = [
        _differentiate_block(block, of_block[:, None], bias, rule, wanted)
        for block, of_block in zip(torch.split(logits, rows), torch.split(labels, rows), strict=True)
    ]
    return torch.stack(losses).sum()


def _differentiate_block(logits: Tensor, labels: Tensor, bias: Tensor | None, rule: Rule, wanted: bool) -> Tensor:
    z = logits.to(wide(logits.dtype), copy=True)
    if bias is not None:
        z += bias
    slope = None
    if rule.softcap is not None:
        z.div_(rule.softcap).tanh_()
        slope = 1 - z.square() if wanted else None
        z *= rule.softcap
    smoothing = rule.label_smoothing
    aim = z.gather(1, labels) * (1 - smoothing)
    if smoothing:
        aim += z.mean(1, keepdim=True) * smoothing
    largest = z.amax(1, keepdim=True)
    z.sub_(largest).exp_()
    total = z.sum(1, keepdim=True)
    if wanted:
        z /= total
        z.scatter_add_(1, labels, z.new_full(labels.shape, smoothing - 1))
        if smoothing:
            z -= smoothing / z.shape[1]
        logits.copy_(z if slope is None else z.mul_(slope))
    return (largest + total.log() - aim).sum()
