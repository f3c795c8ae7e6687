"""Attention over segments in Triton: FlashAttention-2 (Dao 2023, arXiv 2307.08691), for sequences without padding.

    forward       a program a block of queries, over the keys it sees: online softmax, and the row's log sum kept
    dq            a program a block of queries, over the keys it sees
    dk and dv     a program a block of keys, over the queries that see it, of all heads that share the key

Scores are computed again in both backward kernels. Nothing is added atomically, so gradients are the same each time.
Blocks of keys that no query of a block sees are not visited; of the others only those at an edge (diagonal, window,
end of a segment) are masked. Inside, scores and their log sums are in base 2. Heads whose width is no power of two are
padded with zeros as they are loaded.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import torch
import triton
from torch import Tensor

from sottovoce_kernels.segments import Segments

from .forward_kernel import _forward
from .key_kernel import _backward_keys
from .mask import Mask
from .query_kernel import _backward_queries
from .tiles import Tile, tile


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Segments,
    keys: Segments,
    mask: Mask,
    key_bias: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`q` (T, H, D), `k` and `v` (S, Hk, D), `key_bias` (S,) float32. Returns the result (T, H, D), and what `backward`
    needs beside the inputs: the result again, and of each row the logarithm to base 2 of the sum of its exponentiated
    scores, (H, T) float32."""
    q, k, v = (_dense(one) for one in (q, k, v))
    rows, heads, _ = q.shape
    out, sums = torch.empty_like(q), q.new_empty(heads, rows, dtype=torch.float32)
    chosen = tile("forward", q)
    grid = (triton.cdiv(queries.longest, chosen.queries), heads, len(queries.lengths))
    _forward[grid](
        *(q, k, v, key_bias, out, sums, queries.offsets, keys.offsets),
        *_strides(q, k, v, out),
        rows,
        *_numbers(mask),
        **_constants(q, k, mask, chosen),
    )
    return out, (out, sums)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: tuple[Tensor, ...],
    queries: Segments,
    keys: Segments,
    mask: Mask,
    key_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v for `grad` (T, H, D); `kept` as `forward` gave it."""
    out, sums = kept
    grad, q, k, v = (_dense(one) for one in (grad, q, k, v))
    rows, heads, _ = q.shape
    dq, dk, dv = (torch.empty_like(one) for one in (q, k, v))
    inner = torch.empty_like(sums)  # of each row out . grad, which the first kernel leaves for the second
    chosen, segments = tile("dq", q), len(queries.lengths)
    _backward_queries[(triton.cdiv(queries.longest, chosen.queries), heads, segments)](
        *(q, k, v, key_bias, out, grad, sums, inner, dq, queries.offsets, keys.offsets),
        *_strides(q, k, v, out, grad, dq),
        rows,
        *_numbers(mask),
        **_constants(q, k, mask, chosen),
    )
    chosen = tile("dkdv", q)
    _backward_keys[(triton.cdiv(keys.longest, chosen.keys), k.shape[1], segments)](
        *(q, k, v, key_bias, grad, sums, inner, dk, dv, queries.offsets, keys.offsets),
        *_strides(q, k, v, grad, dk, dv),
        rows,
        *_numbers(mask),
        **_constants(q, k, mask, chosen),
    )
    return dq, dk, dv


def _dense(tensor: Tensor) -> Tensor:
    """With values of a head side by side, which is all that kernels ask; a part of a wider projection is as good."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:2]]


def _numbers(mask: Mask) -> tuple[float, float, int]:
    return mask.scale, mask.softcap or 0.0, mask.window or 0


def _constants(q: Tensor, k: Tensor, mask: Mask, chosen: Tile) -> dict[str, object]:
    width = q.shape[2]
    return {
        "GROUP": q.shape[1] // k.shape[1],
        "WIDTH": width,
        "PADDED": max(triton.next_power_of_2(width), 16),
        "CAUSAL": mask.causal,
        "WINDOWED": mask.window is not None,
        "CAPPED": mask.softcap is not None,
        "PRECISION": "ieee" if q.dtype == torch.float32 else "tf32",
        "QUERIES": chosen.queries,
        "KEYS": chosen.keys,
        "num_warps": chosen.warps,
        "num_stages": chosen.stages,
    }
