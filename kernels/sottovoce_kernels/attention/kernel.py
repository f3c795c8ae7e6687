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
import triton.language as tl
from torch import Tensor

from sottovoce_kernels.segments import Segments

from .mask import Mask
from .tiles import Tile, tile

LOG2_E = 1.4426950408889634


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


@triton.jit
def _load(base, row, stride, count, WIDTH: tl.constexpr, PADDED: tl.constexpr, CHECKED: tl.constexpr):
    """Rows `row` of a matrix (rows, WIDTH), padded with zeros to (rows, PADDED); CHECKED: zero from row `count` on."""
    column = tl.arange(0, PADDED)
    at = base + row[:, None] * stride + column[None, :]
    if CHECKED:
        if WIDTH == PADDED:
            return tl.load(at, mask=(row < count)[:, None], other=0.0)
        else:
            return tl.load(at, mask=(row < count)[:, None] & (column < WIDTH)[None, :], other=0.0)
    else:
        if WIDTH == PADDED:
            return tl.load(at)
        else:
            return tl.load(at, mask=(column < WIDTH)[None, :], other=0.0)


@triton.jit
def _store(base, row, stride, count, values, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    column = tl.arange(0, PADDED)
    at = base + row[:, None] * stride + column[None, :]
    tl.store(at, values.to(base.dtype.element_ty), mask=(row < count)[:, None] & (column < WIDTH)[None, :])


@triton.jit
def _seen(query, key, count, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Whether a query sees a key; `query` and `key` broadcast against each other, `count` keys are there."""
    seen = key < count
    if CAUSAL:
        seen = seen & (key <= query)
    if WINDOWED:
        seen = seen & (key > query - window)
    return seen


@triton.jit
def _scores(product, bias, scale, softcap, CAPPED: tl.constexpr):
    """Scores in base 2 of q . k, and the factor that softcapping leaves to their gradient (1 without)."""
    slope = 1.0
    if CAPPED:
        bent = 2.0 * tl.sigmoid(2.0 * scale / softcap * product) - 1.0  # tanh, whose exponential cannot overflow here
        slope = 1.0 - bent * bent
        scores = bent * (softcap * 1.4426950408889634)
    else:
        scores = product * (scale * 1.4426950408889634)
    if bias is not None:
        scores += bias * 1.4426950408889634
    return scores, slope


@triton.jit
def _range_of_keys(
    start, keys, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr
):
    """Where the keys of a block of queries begin, where those that all its queries see begin and end, and the end."""
    low, full_low, high = 0, 0, keys
    full_high = keys // KEYS * KEYS
    if CAUSAL:
        high = min(start + QUERIES, keys)
        full_high = min(start + 1, keys) // KEYS * KEYS
    if WINDOWED:
        low = max(start - window + 1, 0) // KEYS * KEYS
        full_low = min(tl.cdiv(max(start + QUERIES - window, 0), KEYS) * KEYS, high)
    return low, full_low, max(full_high, full_low), high


@triton.jit
def _range_of_queries(
    start, queries, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr
):
    """The same for the queries that see a block of keys."""
    low, full_low, high = 0, 0, queries
    full_high = queries // QUERIES * QUERIES
    if WINDOWED:
        high = min(queries, start + KEYS - 1 + window)
        full_high = min(full_high, (start + window) // QUERIES * QUERIES)
    if CAUSAL:
        low = start // QUERIES * QUERIES
        full_low = min(tl.cdiv(start + KEYS - 1, QUERIES) * QUERIES, high)
    return low, full_low, max(full_high, full_low), high


@triton.jit
def _attend(
    result, total, largest, q, query, k, v, bias, begin, end, keys, k_token, v_token, scale, softcap, window,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, KEYS: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Goes on with online softmax over the keys `begin` to `end`."""
    for first in range(begin, end, KEYS):
        key = first + tl.arange(0, KEYS)
        k_tile = _load(k, key, k_token, keys, WIDTH, PADDED, EDGE)
        product = tl.dot(q, tl.trans(k_tile), input_precision=PRECISION)
        added = None
        if bias is not None:
            added = tl.load(bias + key, mask=key < keys, other=0.0)[None, :]
        scores, _ = _scores(product, added, scale, softcap, CAPPED)
        if EDGE:
            scores = tl.where(
                _seen(query[:, None], key[None, :], keys, window, CAUSAL, WINDOWED), scores, -float("inf")
            )
        larger = tl.maximum(largest, tl.max(scores, 1))
        shift = tl.where(larger == -float("inf"), 0.0, larger)  # where a row has seen nothing yet
        weights = tl.exp2(scores - shift[:, None])
        shrink = tl.exp2(largest - shift)
        total = total * shrink + tl.sum(weights, 1)
        v_tile = _load(v, key, v_token, keys, WIDTH, PADDED, EDGE)
        result = tl.dot(weights.to(v_tile.dtype), v_tile, result * shrink[:, None], input_precision=PRECISION)
        largest = larger
    return result, total, largest


@triton.jit
def _forward(
    q, k, v, bias, out, sums, query_offsets, key_offsets,
    q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head, rows, scale, softcap, window,
    GROUP: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr, PRECISION: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    head, segment = tl.program_id(1), tl.program_id(2)
    first_row, first_key = tl.load(query_offsets + segment), tl.load(key_offsets + segment)
    queries = tl.load(query_offsets + segment + 1) - first_row
    keys = tl.load(key_offsets + segment + 1) - first_key
    start = (tl.cdiv(queries, QUERIES) - 1 - tl.program_id(0)) * QUERIES  # causal: blocks with most keys come first
    if start < 0:
        return
    q += first_row.to(tl.int64) * q_token + head * q_head
    k += first_key.to(tl.int64) * k_token + head // GROUP * k_head
    v += first_key.to(tl.int64) * v_token + head // GROUP * v_head
    if bias is not None:
        bias += first_key
    query = start + tl.arange(0, QUERIES)
    q_tile = _load(q, query, q_token, queries, WIDTH, PADDED, True)
    result = tl.zeros((QUERIES, PADDED), tl.float32)
    total, largest = tl.zeros((QUERIES,), tl.float32), tl.full((QUERIES,), -float("inf"), tl.float32)
    low, full_low, full_high, high = _range_of_keys(start, keys, window, CAUSAL, WINDOWED, QUERIES, KEYS)
    if WINDOWED:
        result, total, largest = _attend(
            result, total, largest, q_tile, query, k, v, bias, low, full_low, keys, k_token, v_token,
            scale, softcap, window, WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, KEYS, True,
        )  # fmt: skip
    result, total, largest = _attend(
        result, total, largest, q_tile, query, k, v, bias, full_low, full_high, keys, k_token, v_token,
        scale, softcap, window, WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, KEYS, False,
    )  # fmt: skip
    result, total, largest = _attend(
        result, total, largest, q_tile, query, k, v, bias, full_high, high, keys, k_token, v_token,
        scale, softcap, window, WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, KEYS, True,
    )  # fmt: skip
    out += first_row.to(tl.int64) * out_token + head * out_head
    _store(out, query, out_token, queries, result / total[:, None], WIDTH, PADDED)
    tl.store(sums + head.to(tl.int64) * rows + first_row + query, largest + tl.log2(total), mask=query < queries)


@triton.jit
def _gather_queries(
    dq, q, grad, sums, inner, query, k, v, bias, begin, end, keys, k_token, v_token, scale, softcap, window,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, KEYS: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Adds to dq what the keys `begin` to `end` give."""
    for first in range(begin, end, KEYS):
        key = first + tl.arange(0, KEYS)
        k_tile = _load(k, key, k_token, keys, WIDTH, PADDED, EDGE)
        v_tile = _load(v, key, v_token, keys, WIDTH, PADDED, EDGE)
        added = None
        if bias is not None:
            added = tl.load(bias + key, mask=key < keys, other=0.0)[None, :]
        product = tl.dot(q, tl.trans(k_tile), input_precision=PRECISION)
        scores, slope = _scores(product, added, scale, softcap, CAPPED)
        weights = tl.exp2(scores - sums[:, None])
        if EDGE:
            weights = tl.where(_seen(query[:, None], key[None, :], keys, window, CAUSAL, WINDOWED), weights, 0.0)
        pull = tl.dot(grad, tl.trans(v_tile), input_precision=PRECISION) - inner[:, None]
        dq = tl.dot((weights * pull * slope).to(k_tile.dtype), k_tile, dq, input_precision=PRECISION)
    return dq


@triton.jit
def _backward_queries(
    q, k, v, bias, out, grad, sums, inner, dq, query_offsets, key_offsets,
    q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head, grad_token, grad_head, dq_token, dq_head,
    rows, scale, softcap, window,
    GROUP: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr, PRECISION: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    head, segment = tl.program_id(1), tl.program_id(2)
    first_row, first_key = tl.load(query_offsets + segment), tl.load(key_offsets + segment)
    queries = tl.load(query_offsets + segment + 1) - first_row
    keys = tl.load(key_offsets + segment + 1) - first_key
    start = (tl.cdiv(queries, QUERIES) - 1 - tl.program_id(0)) * QUERIES
    if start < 0:
        return
    row = first_row.to(tl.int64)
    k += first_key.to(tl.int64) * k_token + head // GROUP * k_head
    v += first_key.to(tl.int64) * v_token + head // GROUP * v_head
    if bias is not None:
        bias += first_key
    query = start + tl.arange(0, QUERIES)
    q_tile = _load(q + row * q_token + head * q_head, query, q_token, queries, WIDTH, PADDED, True)
    grad_tile = _load(grad + row * grad_token + head * grad_head, query, grad_token, queries, WIDTH, PADDED, True)
    out_tile = _load(out + row * out_token + head * out_head, query, out_token, queries, WIDTH, PADDED, True)
    of_rows = head.to(tl.int64) * rows + row + query
    own = tl.sum(out_tile.to(tl.float32) * grad_tile.to(tl.float32), 1)
    tl.store(inner + of_rows, own, mask=query < queries)
    own_sums = tl.load(sums + of_rows, mask=query < queries, other=float("inf"))
    total = tl.zeros((QUERIES, PADDED), tl.float32)
    low, full_low, full_high, high = _range_of_keys(start, keys, window, CAUSAL, WINDOWED, QUERIES, KEYS)
    if PADDED > 128:  # the accumulator fills the registers, and three loops would hold more addresses than one
        total = _gather_queries(
            total, q_tile, grad_tile, own_sums, own, query, k, v, bias, low, high, keys, k_token, v_token,
            scale, softcap, window, WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, KEYS, True,
        )  # fmt: skip
    else:
        if WINDOWED:
            total = _gather_queries(
                total, q_tile, grad_tile, own_sums, own, query, k, v, bias, low, full_low, keys, k_token, v_token,
                scale, softcap, window, WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, KEYS, True,
            )  # fmt: skip
        total = _gather_queries(
            total, q_tile, grad_tile, own_sums, own, query, k, v, bias, full_low, full_high, keys, k_token, v_token,
            scale, softcap, window, WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, KEYS, False,
        )  # fmt: skip
        total = _gather_queries(
            total, q_tile, grad_tile, own_sums, own, query, k, v, bias, full_high, high, keys, k_token, v_token,
            scale, softcap, window, WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, KEYS, True,
        )  # fmt: skip
    _store(dq + row * dq_token + head * dq_head, query, dq_token, queries, total * scale, WIDTH, PADDED)


@triton.jit
def _gather_keys(
    dk, dv, k, v, bias, key, q, grad, sums, inner, begin, end, queries, keys, q_token, grad_token,
    scale, softcap, window,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, QUERIES: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Adds to dk and dv what the queries `begin` to `end` of one head give. Scores lie transposed, (keys, queries)."""
    for first in range(begin, end, QUERIES):
        query = first + tl.arange(0, QUERIES)
        q_tile = _load(q, query, q_token, queries, WIDTH, PADDED, EDGE)
        grad_tile = _load(grad, query, grad_token, queries, WIDTH, PADDED, EDGE)
        if EDGE:
            own_sums = tl.load(sums + query, mask=query < queries, other=float("inf"))
            own = tl.load(inner + query, mask=query < queries, other=0.0)
        else:
            own_sums = tl.load(sums + query)
            own = tl.load(inner + query)
        product = tl.dot(k, tl.trans(q_tile), input_precision=PRECISION)
        scores, slope = _scores(product, bias, scale, softcap, CAPPED)
        weights = tl.exp2(scores - own_sums[None, :])
        if EDGE:
            weights = tl.where(_seen(query[None, :], key[:, None], keys, window, CAUSAL, WINDOWED), weights, 0.0)
        dv = tl.dot(weights.to(grad_tile.dtype), grad_tile, dv, input_precision=PRECISION)
        pull = tl.dot(v, tl.trans(grad_tile), input_precision=PRECISION) - own[None, :]
        dk = tl.dot((weights * pull * slope).to(q_tile.dtype), q_tile, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit
def _backward_keys(
    q, k, v, bias, grad, sums, inner, dk, dv, query_offsets, key_offsets,
    q_token, q_head, k_token, k_head, v_token, v_head, grad_token, grad_head, dk_token, dk_head, dv_token, dv_head,
    rows, scale, softcap, window,
    GROUP: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr, PRECISION: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    shared_head, segment = tl.program_id(1), tl.program_id(2)
    first_row, first_key = tl.load(query_offsets + segment), tl.load(key_offsets + segment)
    queries = tl.load(query_offsets + segment + 1) - first_row
    keys = tl.load(key_offsets + segment + 1) - first_key
    start = tl.program_id(0) * KEYS
    if start >= keys:
        return
    row, key_row = first_row.to(tl.int64), first_key.to(tl.int64)
    key = start + tl.arange(0, KEYS)
    k_tile = _load(k + key_row * k_token + shared_head * k_head, key, k_token, keys, WIDTH, PADDED, True)
    v_tile = _load(v + key_row * v_token + shared_head * v_head, key, v_token, keys, WIDTH, PADDED, True)
    added = None
    if bias is not None:
        added = tl.load(bias + key_row + key, mask=key < keys, other=0.0)[:, None]
    dk_total, dv_total = tl.zeros((KEYS, PADDED), tl.float32), tl.zeros((KEYS, PADDED), tl.float32)
    low, full_low, full_high, high = _range_of_queries(start, queries, window, CAUSAL, WINDOWED, QUERIES, KEYS)
    for member in range(GROUP):
        head = shared_head * GROUP + member
        of_rows = head.to(tl.int64) * rows + row
        q_rows, grad_rows = q + row * q_token + head * q_head, grad + row * grad_token + head * grad_head
        if PADDED > 64:  # accumulators fill the registers, and three loops would hold more addresses than one
            dk_total, dv_total = _gather_keys(
                dk_total, dv_total, k_tile, v_tile, added, key, q_rows, grad_rows, sums + of_rows, inner + of_rows,
                low, high, queries, keys, q_token, grad_token, scale, softcap, window,
                WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, QUERIES, True,
            )  # fmt: skip
        else:
            if CAUSAL:
                dk_total, dv_total = _gather_keys(
                    dk_total, dv_total, k_tile, v_tile, added, key, q_rows, grad_rows, sums + of_rows, inner + of_rows,
                    low, full_low, queries, keys, q_token, grad_token, scale, softcap, window,
                    WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, QUERIES, True,
                )  # fmt: skip
            dk_total, dv_total = _gather_keys(
                dk_total, dv_total, k_tile, v_tile, added, key, q_rows, grad_rows, sums + of_rows, inner + of_rows,
                full_low, full_high, queries, keys, q_token, grad_token, scale, softcap, window,
                WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, QUERIES, False,
            )  # fmt: skip
            dk_total, dv_total = _gather_keys(
                dk_total, dv_total, k_tile, v_tile, added, key, q_rows, grad_rows, sums + of_rows, inner + of_rows,
                full_high, high, queries, keys, q_token, grad_token, scale, softcap, window,
                WIDTH, PADDED, CAUSAL, WINDOWED, CAPPED, PRECISION, QUERIES, True,
            )  # fmt: skip
    _store(dk + key_row * dk_token + shared_head * dk_head, key, dk_token, keys, dk_total * scale, WIDTH, PADDED)
    _store(dv + key_row * dv_token + shared_head * dv_head, key, dv_token, keys, dv_total, WIDTH, PADDED)
