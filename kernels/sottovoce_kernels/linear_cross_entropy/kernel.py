"""linear_cross_entropy on a GPU: the vendor's matrix products, and one kernel between them.

Why not everything in one kernel: a row's gradient needs the sum over the whole vocabulary first, so a fused kernel
computes the product with the weight twice, three products in place of two, and gains what the logits' way to memory
and back costs. That is 8 bytes a logit (written, read twice, written) and once more read by the second product, against
4 W operations: at W = 576 on an H100 3 ns for a thousand logits against 2.3 of the products, at W = 2048 3 against 8.3;
the third product would cost 1.2 and 4.1. Below W = 1,500 a fused kernel could win if its products were as fast as
cuBLAS's, which needs (rows, W) sums in float32 within one block: 64 rows of 576 are more than half of all registers.

The kernel between reads a row twice, the first time for maximum and sum together (online softmax: Milakov and
Gimelshein 2018, arXiv 1805.02867), and writes the gradient over it.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl
from torch import Tensor

from . import chunks, reference
from .chunks import Needs, Outcome, wide
from .rule import Rule

BLOCK = 4096  # logits a step: 16 a thread
WARPS = 8

backward = reference.backward


def forward(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, rule: Rule, needs: Needs) -> Outcome:
    """The loss and its gradients, as `chunks.forward` says."""
    return chunks.forward(differentiate, hidden, weight, labels, bias, rule, needs)


def differentiate(logits: Tensor, labels: Tensor, bias: Tensor | None, rule: Rule, wanted: bool) -> Tensor:
    """As `chunks.Differentiate` says; one program a row."""
    rows, vocabulary = logits.shape
    losses = logits.new_empty(rows, dtype=wide(logits.dtype))
    _differentiate[(rows,)](
        logits,
        labels.contiguous(),
        None if bias is None else bias.contiguous(),
        losses,
        vocabulary,
        logits.stride(0),
        rule.softcap or 0.0,
        rule.label_smoothing,
        rule.label_smoothing / vocabulary,
        CAPPED=rule.softcap is not None,
        SMOOTHED=rule.label_smoothing > 0.0,
        WANTED=wanted,
        BLOCK=min(BLOCK, triton.next_power_of_2(vocabulary)),
        num_warps=WARPS,
    )
    return losses.sum()


@triton.jit
def _capped(z, softcap):
    """softcap tanh(z / softcap); tanh by the logistic function, whose exponential cannot overflow here."""
    return softcap * (2.0 * tl.sigmoid(2.0 * z / softcap) - 1.0)


@triton.jit
def _logits(row, bias, at, mask, softcap, CAPPED: tl.constexpr):
    """z of the columns `at`, float32; minus infinity where the mask is false."""
    z = tl.load(row + at, mask=mask).to(tl.float32)
    if bias is not None:
        z += tl.load(bias + at, mask=mask).to(tl.float32)
    if CAPPED:
        z = _capped(z, softcap)
    return z if mask is None else tl.where(mask, z, -float("inf"))


@triton.jit
def _differentiate(
    logits,  # (rows, vocabulary), replaced by its gradient
    labels,  # (rows,) int64
    bias,  # (vocabulary,) or None
    losses,  # (rows,) float32
    vocabulary,
    stride,
    softcap,
    smoothing,
    share,  # smoothing / vocabulary
    CAPPED: tl.constexpr,
    SMOOTHED: tl.constexpr,
    WANTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * stride
    label = tl.load(labels + number)
    column = tl.arange(0, BLOCK)
    whole = vocabulary // BLOCK * BLOCK  # blocks up to here need no mask, which would forbid wide loads

    largest, total, plain = -float("inf"), 0.0, 0.0
    for start in range(0, whole, BLOCK):
        z = _logits(row, bias, start + column, None, softcap, CAPPED)
        larger = tl.maximum(largest, tl.max(z))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(z - larger))
        largest = larger
        if SMOOTHED:
            plain += tl.sum(z)
    if whole < vocabulary:
        inside = whole + column < vocabulary
        z = _logits(row, bias, whole + column, inside, softcap, CAPPED)
        larger = tl.maximum(largest, tl.max(z))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(z - larger))
        largest = larger
        if SMOOTHED:
            plain += tl.sum(tl.where(inside, z, 0.0))
    normalizer = largest + tl.log(total)

    aim = _logits(row, bias, label, None, softcap, CAPPED)
    if WANTED:
        tl.debug_barrier()  # the label's logit was read by all before one overwrites it
    tl.store(losses + number, normalizer - (1.0 - smoothing) * aim - share * plain)
    if WANTED:
        for start in range(0, whole, BLOCK):
            at = start + column
            z = _logits(row, bias, at, None, softcap, CAPPED)
            tl.store(row + at, _gradient(z, at, label, normalizer, softcap, smoothing, share, CAPPED))
        if whole < vocabulary:
            at = whole + column
            z = _logits(row, bias, at, at < vocabulary, softcap, CAPPED)
            tl.store(row + at, _gradient(z, at, label, normalizer, softcap, smoothing, share, CAPPED), at < vocabulary)


@triton.jit
def _gradient(z, at, label, normalizer, softcap, smoothing, share, CAPPED: tl.constexpr):
    gradient = tl.exp(z - normalizer) - share - tl.where(at == label, 1.0 - smoothing, 0.0)
    if CAPPED:
        bent = z / softcap
        gradient *= 1.0 - bent * bent
    return gradient
