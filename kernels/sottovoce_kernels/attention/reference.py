"""attention in plain torch, forward and backward by hand: what a CPU runs, and what the kernels are held against.

    P = softmax(S)          O = P V
    dV = P^T dO             dS = P (dO V^T - rowsum(P dO V^T))      dQ = scale dS K      dK = scale dS^T Q

Segment after segment; neighbours of equal length together, in one call. Forward is torch's own fused attention where it
has the mask. Backward is so for long segments alone (`pieces`, `fused`): of causal ones below a thousand rows torch's
takes longer on a CPU than the products below, which see 64 queries at a time, with only the keys that these may see.
Scores are computed again there, so that nothing is kept but q, k and v. Heads that share a key lie below each other in
one product, which adds up their gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from sottovoce_kernels.segments import Segments

from .mask import Mask

BLOCK = 64  # queries whose scores exist at a time
RUN_ROWS = 512  # of segments of equal length that are computed together: more gained nothing
LONG_CAUSAL, LONG = 1024, 256  # queries from which torch's own backward is the faster one
SHORT = 64  # queries up to which products are made in float32, where narrower ones are slower

Gradients = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring segments, `count` of them, of `queries` and `keys` rows each."""

    count: int
    queries: int
    keys: int
    rows: slice
    key_rows: slice


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring segments, all of them `long` or none: their rows, and the segments counted from there."""

    long: bool
    rows: slice
    key_rows: slice
    queries: Segments
    keys: Segments


def pieces(queries: Segments, keys: Segments, mask: Mask) -> list[Piece]:
    """Segments for which `fused` is the faster, and the others for `forward` and `backward`, in their order."""
    found, row, key_row = [], 0, 0
    pairs = zip(queries.lengths, keys.lengths, strict=True)
    for long, group in groupby(pairs, key=lambda lengths: _is_long(lengths[0], mask)):
        lengths, key_lengths = zip(*group, strict=True)
        end, key_end = row + sum(lengths), key_row + sum(key_lengths)
        parts = Segments.of(lengths), Segments.of(key_lengths)
        found.append(Piece(long, slice(row, end), slice(key_row, key_end), *parts))
        row, key_row = end, key_end
    return found


def _is_long(queries: int, mask: Mask) -> bool:
    if mask.softcap is not None or (mask.window is not None and mask.window < queries):
        return False
    return queries >= (LONG_CAUSAL if mask.causal else LONG)


def fused(
    q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments, mask: Mask, key_bias: Tensor | None
) -> Tensor:
    """As `forward`, but differentiable by itself: torch's attention of each segment. The mask has no softcap and no
    window that is narrower than a segment, and no bias where it is causal."""
    rows, key_rows = list(queries.lengths), list(keys.lengths)
    biases = [None] * len(key_rows) if key_bias is None else torch.split(key_bias, key_rows)
    parts = zip(torch.split(q, rows), torch.split(k, key_rows), torch.split(v, key_rows), biases, strict=True)
    outs = [_fused_segment(*part, mask) for part in parts]
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def _fused_segment(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Mask) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    bite = None if bias is None or not bool(bias.any()) else bias.to(q.dtype)[None, None, None]
    q, k, v = (one.transpose(0, 1)[None] for one in (q, k, v))
    out = functional.scaled_dot_product_attention(
        q, k, v, bite, is_causal=mask.causal, scale=mask.scale, enable_gqa=grouped
    )
    return out[0].transpose(0, 1)


def forward(
    q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments, mask: Mask, key_bias: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`q` (T, H, D), `k` and `v` (S, Hk, D), `key_bias` (S,) float32. Returns the result (T, H, D), and what `backward`
    needs beside the inputs, which is nothing."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for run in _runs(queries, keys):
        attend = _fused if _is_plain(run, mask, key_bias) else _blockwise
        attend(out[run.rows], q[run.rows], k[run.key_rows], v[run.key_rows], run, mask, _bias_of(run, key_bias))
    return out, ()


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
) -> Gradients:
    """Gradients of q, k and v for `grad` (T, H, D)."""
    dq, dk, dv = (torch.empty_like(one, memory_format=torch.contiguous_format) for one in (q, k, v))
    for run in _runs(queries, keys):
        places = dq[run.rows], dk[run.key_rows], dv[run.key_rows]
        given = grad[run.rows], q[run.rows], k[run.key_rows], v[run.key_rows]
        _differentiate(places, given, run, mask, _bias_of(run, key_bias))
    return dq, dk, dv


def _runs(queries: Segments, keys: Segments) -> Iterator[_Run]:
    row, key_row = 0, 0
    for (length, key_length), equal in groupby(zip(queries.lengths, keys.lengths, strict=True)):
        left, most = len(list(equal)), max(RUN_ROWS // length, 1)
        while left:
            count = min(left, most)
            end, key_end = row + count * length, key_row + count * key_length
            yield _Run(count, length, key_length, slice(row, end), slice(key_row, key_end))
            row, key_row, left = end, key_end, left - count


def _bias_of(run: _Run, key_bias: Tensor | None) -> Tensor | None:
    """(count, 1, keys) of a run, None where it changes nothing."""
    if key_bias is None or not bool(key_bias[run.key_rows].any()):
        return None
    return key_bias[run.key_rows].view(run.count, 1, run.keys)


def _is_plain(run: _Run, mask: Mask, key_bias: Tensor | None) -> bool:
    """Whether torch's attention has this mask: a whole triangle, or all keys and no bias that bites."""
    narrow = mask.window is not None and mask.window < run.keys
    return mask.softcap is None and not narrow and _bias_of(run, key_bias) is None


def _fused(out: Tensor, q: Tensor, k: Tensor, v: Tensor, run: _Run, mask: Mask, bias: Tensor | None) -> None:
    grouped = q.shape[1] != k.shape[1]
    q, k, v = (torch.unflatten(one, 0, (run.count, -1)).transpose(1, 2) for one in (q, k, v))
    found = functional.scaled_dot_product_attention(
        q, k, v, is_causal=mask.causal, scale=mask.scale, enable_gqa=grouped
    )
    out.copy_(found.transpose(1, 2).flatten(0, 1))


def _blockwise(out: Tensor, q: Tensor, k: Tensor, v: Tensor, run: _Run, mask: Mask, bias: Tensor | None) -> None:
    shared, dtype = k.shape[1], _product_dtype(q, run)
    k, v = (_by_head(one, run.count, shared).to(dtype) for one in (k, v))
    for begin in range(0, run.queries, BLOCK):
        end = min(begin + BLOCK, run.queries)
        first, last = mask.seen(begin, end, run.keys)
        weights, _ = _weights(_rows(q, run, shared, begin, end, dtype), k[:, first:last], (begin, first), mask, bias)
        _put(out, torch.bmm(weights.to(dtype), v[:, first:last]), run, shared, begin, end)


def _differentiate(
    places: Gradients, given: tuple[Tensor, Tensor, Tensor, Tensor], run: _Run, mask: Mask, bias: Tensor | None
) -> None:
    grad, q, k, v = given
    shared, dtype = k.shape[1], _product_dtype(q, run)
    k, v = (_by_head(one, run.count, shared).to(dtype) for one in (k, v))
    dk, dv = (torch.zeros_like(one, dtype=_wide(one.dtype)) for one in (k, v))
    for begin in range(0, run.queries, BLOCK):
        end = min(begin + BLOCK, run.queries)
        first, last = mask.seen(begin, end, run.keys)
        q_rows, grad_rows = (_rows(one, run, shared, begin, end, dtype) for one in (q, grad))
        weights, slope = _weights(q_rows, k[:, first:last], (begin, first), mask, bias)
        pull = torch.bmm(grad_rows, v[:, first:last].mT).to(weights.dtype)
        pull -= (weights * pull).sum(2, keepdim=True)
        pull.mul_(weights).mul_(mask.scale)
        scores = (pull if slope is None else pull.mul_(slope)).to(dtype)
        _put(places[0], torch.bmm(scores, k[:, first:last]), run, shared, begin, end)
        _add_product(dk[:, first:last], scores.mT, q_rows)
        _add_product(dv[:, first:last], weights.to(dtype).mT, grad_rows)
    for place, found in zip(places[1:], (dk, dv), strict=True):
        by_row = torch.unflatten(found, 0, (run.count, -1)).transpose(1, 2)
        torch.unflatten(place, 0, (run.count, -1)).copy_(by_row)


def _weights(
    q: Tensor, k: Tensor, origin: tuple[int, int], mask: Mask, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Softmax of the scores (batch, heads that share * queries, keys) in float32 or wider, and the factor that
    softcapping leaves to their gradient. `origin`: positions of the first query and the first key."""
    scores = torch.bmm(q, k.mT).to(_wide(q.dtype)).mul_(mask.scale)
    slope = None
    if mask.softcap is not None:
        scores.div_(mask.softcap).tanh_()
        slope = 1 - scores.square()
        scores *= mask.softcap
    begin, first = origin
    if bias is not None:
        of_segments = torch.unflatten(scores, 0, (len(bias), -1))
        of_segments += bias[:, None, :, first : first + k.shape[1]]
    if mask.causal:
        _hide(scores, begin - first, first + k.shape[1] - begin, mask.window)
    return torch.softmax(scores, 2), slope


def _hide(scores: Tensor, ahead: int, queries: int, window: int | None) -> None:
    """Makes minus infinity of what may not be seen; the first query is `ahead` keys behind the first key."""
    from_diagonal = ahead if window is None else 0  # before it, without a window, everything is seen
    keys = scores.shape[2] - from_diagonal
    seen = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril_(ahead - from_diagonal)
    if window is not None:
        seen.triu_(ahead - window + 1)
    torch.unflatten(scores, 1, (-1, queries))[..., from_diagonal:].masked_fill_(~seen, -torch.inf)


def _by_head(x: Tensor, count: int, shared: int) -> Tensor:
    """(count L, H, D) as (count shared, H / shared L, D)."""
    by_head = torch.unflatten(torch.unflatten(x, 0, (count, -1)), 2, (shared, -1)).permute(0, 2, 3, 1, 4)
    return by_head.reshape(count * shared, -1, x.shape[2])


def _rows(x: Tensor, run: _Run, shared: int, begin: int, end: int, dtype: torch.dtype) -> Tensor:
    """Queries `begin` to `end` of each segment as `_by_head` lays them."""
    part = torch.unflatten(x, 0, (run.count, -1))[:, begin:end]
    by_head = torch.unflatten(part, 2, (shared, -1)).permute(0, 2, 3, 1, 4)
    return by_head.to(dtype).reshape(run.count * shared, -1, x.shape[2])


def _put(place: Tensor, found: Tensor, run: _Run, shared: int, begin: int, end: int) -> None:
    """The way back from `_rows`."""
    rows = found.view(run.count, shared, -1, end - begin, found.shape[2]).permute(0, 3, 1, 2, 4)
    torch.unflatten(place, 0, (run.count, -1))[:, begin:end].copy_(rows.flatten(2, 3))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left right, with a total that may be wider than they are."""
    if total.dtype == left.dtype:
        total.baddbmm_(left, right)
    else:
        total += torch.bmm(left, right)


def _product_dtype(q: Tensor, run: _Run) -> torch.dtype:
    return _wide(q.dtype) if run.queries <= SHORT else q.dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
