"""The differentiable function over all implementations."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sottovoce_kernels.backend import Backend, choose
from sottovoce_kernels.segments import Segments

from . import flash, reference
from .dispatch import choose_attention, facts_of
from .mask import Mask, check


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Segments,
    keys: Segments | None = None,
    *,
    causal: bool,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    key_bias: Tensor | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """softmax(scores) v of each segment by itself, (T, H, D); what the scores are, `Mask` says.

    `q` (T, H, D); `k` and `v` (S, Hk, D), Hk a divisor of H: that many heads share a key. `queries` divides T, `keys`
    divides S (the same where None), segment i of one sees segment i of the other. `causal`: no query sees a later key.
    `window`: positions a query sees, itself included. `key_bias` (S,) float32 is added to all scores of a key (the
    logarithm of how many keys it stands for, say) and gets no gradient. Softmax and sums are in float32, all of it in
    float64 where q is.

    Without `backend`, what `dispatch` chooses for these tensors. Raises ValueError for shapes, dtypes, segments or
    masks that do not go together.
    """
    keys = queries if keys is None else keys
    mask = Mask(causal, scale, window, softcap)
    check(q, k, v, queries, keys, mask, key_bias)
    if backend is None:
        choice = choose_attention(facts_of(q, k, v, (queries.longest, keys.longest), mask, key_bias is not None)).name
        if choice == "flash_attn":
            return flash.attention(q, k, v, queries, keys, mask)
        backend = "triton" if choice == "triton" else "reference"
    backend = choose(backend, q, k, v, key_bias)
    key_bias = None if key_bias is None else key_bias.detach().contiguous()
    if backend == "reference":
        return _in_pieces(q, k, v, key_bias, queries, keys, mask)
    return _apply(q, k, v, key_bias, queries, keys, mask, backend)


def _apply(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None, *options: Any) -> Tensor:
    function: Any = _Attention
    out: Tensor = function.apply(q, k, v, key_bias, *options)
    return out


def _in_pieces(
    q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None, queries: Segments, keys: Segments, mask: Mask
) -> Tensor:
    """The reference, with long segments left to torch and its own backward."""
    found = reference.pieces(queries, keys, mask)
    if (mask.causal and key_bias is not None) or not any(piece.long for piece in found):
        return _apply(q, k, v, key_bias, queries, keys, mask, "reference")
    rows = [piece.queries.total for piece in found]
    key_rows = [piece.keys.total for piece in found]
    biases = [None] * len(found) if key_bias is None else torch.split(key_bias, key_rows)
    of_pieces = zip(torch.split(q, rows), torch.split(k, key_rows), torch.split(v, key_rows), biases, strict=True)
    outs = []
    for piece, (part_q, part_k, part_v, bias) in zip(found, of_pieces, strict=True):
        if piece.long:
            outs.append(reference.fused(part_q, part_k, part_v, piece.queries, piece.keys, mask, bias))
        else:
            outs.append(_apply(part_q, part_k, part_v, bias, piece.queries, piece.keys, mask, "reference"))
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def _implementation(backend: Backend) -> Any:
    if backend == "reference":
        return reference
    from . import kernel

    return kernel


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_bias: Tensor | None,
        queries: Segments,
        keys: Segments,
        mask: Mask,
        backend: Backend,
    ) -> Tensor:
        out: Tensor
        out, kept = _implementation(backend).forward(q, k, v, queries, keys, mask, key_bias)
        ctx.save_for_backward(q, k, v, key_bias, *kept)
        ctx.options = queries, keys, mask, backend
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, key_bias, *kept = ctx.saved_tensors
        queries, keys, mask, backend = ctx.options
        found = _implementation(backend).backward(grads[0], q, k, v, tuple(kept), queries, keys, mask, key_bias)
        return (*found, None, None, None, None, None)
