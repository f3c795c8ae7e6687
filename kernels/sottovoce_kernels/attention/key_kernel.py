"""The gradients of k and v: a program a block of keys, over the queries that see it, of all heads that share them."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from .blocks import load, range_of_queries, scores_of, seen, store


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
        q_tile = load(q, query, q_token, queries, WIDTH, PADDED, EDGE)
        grad_tile = load(grad, query, grad_token, queries, WIDTH, PADDED, EDGE)
        if EDGE:
            own_sums = tl.load(sums + query, mask=query < queries, other=float("inf"))
            own = tl.load(inner + query, mask=query < queries, other=0.0)
        else:
            own_sums = tl.load(sums + query)
            own = tl.load(inner + query)
        product = tl.dot(k, tl.trans(q_tile), input_precision=PRECISION)
        scores, slope = scores_of(product, bias, scale, softcap, CAPPED)
        weights = tl.exp2(scores - own_sums[None, :])
        if EDGE:
            weights = tl.where(seen(query[None, :], key[:, None], keys, window, CAUSAL, WINDOWED), weights, 0.0)
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
    k_tile = load(k + key_row * k_token + shared_head * k_head, key, k_token, keys, WIDTH, PADDED, True)
    v_tile = load(v + key_row * v_token + shared_head * v_head, key, v_token, keys, WIDTH, PADDED, True)
    added = None
    if bias is not None:
        added = tl.load(bias + key_row + key, mask=key < keys, other=0.0)[:, None]
    dk_total, dv_total = tl.zeros((KEYS, PADDED), tl.float32), tl.zeros((KEYS, PADDED), tl.float32)
    low, full_low, full_high, high = range_of_queries(start, queries, window, CAUSAL, WINDOWED, QUERIES, KEYS)
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
    store(dk + key_row * dk_token + shared_head * dk_head, key, dk_token, keys, dk_total * scale, WIDTH, PADDED)
    store(dv + key_row * dv_token + shared_head * dv_head, key, dv_token, keys, dv_total, WIDTH, PADDED)
