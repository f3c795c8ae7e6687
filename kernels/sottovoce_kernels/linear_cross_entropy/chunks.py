"""The loop over chunks of rows that both implementations share: two products a chunk, and a place for the logits.

Rows without a label are left out before any product. The gradient of a chunk's logits takes their place as soon as
their loss is known, and is multiplied with the weight at once, so that the backward pass has nothing left to compute:
one chunk of logits exists at a time, whether or not gradients are wanted (chunked losses: Hsu et al. 2024, arXiv
2410.10989, section 3.2).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .rule import Rule, chunk_rows

ALIGNED = 64  # values; rows of a GPU's chunk begin at multiples of it, for odd vocabularies' sake


@dataclass(frozen=True, slots=True)
class Needs:
    """Which gradients are wanted."""

    hidden: bool = False
    weight: bool = False
    bias: bool = False

    @property
    def any(self) -> bool:
        return self.hidden or self.weight or self.bias


@dataclass(frozen=True, slots=True)
class Outcome:
    """`loss`: the sum over labelled rows, float32 (float64 of float64), and gradients of it, None where not wanted:
    `hidden` (kept, W) of the labelled rows alone, whose numbers are `kept` (kept,) int64, None where that is all rows;
    `weight` (V, W); `bias` (V,)."""

    loss: Tensor
    kept: Tensor | None
    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


class Differentiate(Protocol):
    """The part that differs: returns the losses of rows, summed, and with `wanted` puts in place of `logits` (C, V) the
    gradient of that sum with respect to them. `labels` (C,) int64, `bias` (V,) is added to the logits first."""

    def __call__(self, logits: Tensor, labels: Tensor, bias: Tensor | None, rule: Rule, wanted: bool) -> Tensor: ...


def wide(dtype: torch.dtype) -> torch.dtype:
    """In which dtype sums are made."""
    return torch.promote_types(dtype, torch.float32)


def forward(
    differentiate: Differentiate,
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    rule: Rule,
    needs: Needs,
) -> Outcome:
    """`hidden` (T, W), `weight` (V, W), `labels` (T,) int64, `bias` (V,). Raises ValueError for a label that is none of
    the vocabulary's."""
    kept = _labelled(labels, len(weight), rule.ignore_index)
    if kept is not None:
        hidden, labels = hidden[kept], labels[kept]
    rows = rule.chunk or chunk_rows(len(hidden), len(weight), hidden.dtype, hidden.device)
    place = _place(min(rows, len(hidden)), len(weight), hidden)
    loss = hidden.new_zeros((), dtype=wide(hidden.dtype))
    hidden_gradient = torch.empty_like(hidden) if needs.hidden else None
    weight_gradient = weight.new_zeros(weight.shape, dtype=wide(weight.dtype)) if needs.weight else None
    bias_gradient = weight.new_zeros(len(weight), dtype=wide(weight.dtype)) if needs.bias else None
    for begin in range(0, len(hidden), rows):
        part = slice(begin, min(begin + rows, len(hidden)))
        logits = torch.mm(hidden[part], weight.T, out=place[: part.stop - begin])
        loss += differentiate(logits, labels[part], bias, rule, needs.any)
        if hidden_gradient is not None:
            torch.mm(logits, weight, out=hidden_gradient[part])
        if weight_gradient is not None:
            _add_product(weight_gradient, logits.T, hidden[part])
        if bias_gradient is not None:
            bias_gradient += logits.sum(0, dtype=bias_gradient.dtype)
    return Outcome(loss, kept, hidden_gradient, weight_gradient, bias_gradient)


def _labelled(labels: Tensor, vocabulary: int, ignore_index: int) -> Tensor | None:
    """Numbers of the rows that have a label, None where all have one. The only wait for a GPU, once a step: it saves
    the products of all other rows."""
    labelled = labels != ignore_index
    wrong = labelled & ((labels < 0) | (labels >= vocabulary))
    count, errors = torch.stack((labelled.sum(), wrong.sum())).tolist()
    if errors:
        first = int(labels[wrong][0])
        raise ValueError(
            f"label {first} for a vocabulary of {vocabulary}; labels are 0 to {vocabulary - 1}, or {ignore_index} "
            "where nothing is learned"
        )
    return None if count == len(labels) else labelled.nonzero()[:, 0]


def _place(rows: int, vocabulary: int, like: Tensor) -> Tensor:
    """Where each chunk's logits are put, (rows, vocabulary)."""
    padded = -(-vocabulary // ALIGNED) * ALIGNED if like.is_cuda else vocabulary
    return like.new_empty(rows, padded)[:, :vocabulary]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left right, with a total that may be wider than they are."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
