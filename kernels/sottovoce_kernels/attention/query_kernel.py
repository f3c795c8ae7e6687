"""The gradient of q: a program a block of queries, over the keys it sees."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from .blocks import load, range_of_keys, scores_of, seen, store


@triton.jit
def _gather_queries(
    dq, q, grad, sums, inner, query, k, v, bias, begin, end, keys, k_token, v_token, scale, softcap, window,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, KEYS: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Adds to dq what the keys `begin` to `end` give."""
    for first in range(begin, end, KEYS):
        key = first + tl.arange(0, KEYS)
        k_tile = load(k, key, k_token, keys, WIDTH, PADDED, EDGE)
        v_tile = load(v, key, v_token, keys, WIDTH, PADDED, EDGE)
        added = None
        if bias is not None:
            added = tl.load(bias + key, mask=key < keys, other=0.0)[None, :]
        product = tl.dot(q, tl.trans(k_tile), input_precision=PRECISION)
        scores, slope = scores_of(product, added, scale, softcap, CAPPED)
        weights = tl.exp2(scores - sums[:, None])
        if EDGE:
            weights = tl.where(seen(query[:, None], key[None, :], keys, window, CAUSAL, WINDOWED), weights, 0.0)
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
    q_tile = load(q + row * q_token + head * q_head, query, q_token, queries, WIDTH, PADDED, True)
    grad_tile = load(grad + row * grad_token + head * grad_head, query, grad_token, queries, WIDTH, PADDED, True)
    out_tile = load(out + row * out_token + head * out_head, query, out_token, queries, WIDTH, PADDED, True)
    of_rows = head.to(tl.int64) * rows + row + query
    own = tl.sum(out_tile.to(tl.float32) * grad_tile.to(tl.float32), 1)
    tl.store(inner + of_rows, own, mask=query < queries)
    own_sums = tl.load(sums + of_rows, mask=query < queries, other=float("inf"))
    total = tl.zeros((QUERIES, PADDED), tl.float32)
    low, full_low, full_high, high = range_of_keys(start, keys, window, CAUSAL, WINDOWED, QUERIES, KEYS)
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
    store(dq + row * dq_token + head * dq_head, query, dq_token, queries, total * scale, WIDTH, PADDED)
