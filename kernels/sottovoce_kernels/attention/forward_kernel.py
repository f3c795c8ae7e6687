"""Attention forward: a program a block of queries, over the keys it sees."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from .blocks import load, range_of_keys, scores_of, seen, store


@triton.jit
def _attend(
    result, total, largest, q, query, k, v, bias, begin, end, keys, k_token, v_token, scale, softcap, window,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, KEYS: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Goes on with online softmax over the keys `begin` to `end`."""
    for first in range(begin, end, KEYS):
        key = first + tl.arange(0, KEYS)
        k_tile = load(k, key, k_token, keys, WIDTH, PADDED, EDGE)
        product = tl.dot(q, tl.trans(k_tile), input_precision=PRECISION)
        added = None
        if bias is not None:
            added = tl.load(bias + key, mask=key < keys, other=0.0)[None, :]
        scores, _ = scores_of(product, added, scale, softcap, CAPPED)
        if EDGE:
            scores = tl.where(seen(query[:, None], key[None, :], keys, window, CAUSAL, WINDOWED), scores, -float("inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        shift = tl.where(larger == -float("inf"), 0.0, larger)  # where a row has seen nothing yet
        weights = tl.exp2(scores - shift[:, None])
        shrink = tl.exp2(largest - shift)
        total = total * shrink + tl.sum(weights, 1)
        v_tile = load(v, key, v_token, keys, WIDTH, PADDED, EDGE)
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
    q_tile = load(q, query, q_token, queries, WIDTH, PADDED, True)
    result = tl.zeros((QUERIES, PADDED), tl.float32)
    total, largest = tl.zeros((QUERIES,), tl.float32), tl.full((QUERIES,), -float("inf"), tl.float32)
    low, full_low, full_high, high = range_of_keys(start, keys, window, CAUSAL, WINDOWED, QUERIES, KEYS)
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
    store(out, query, out_token, queries, result / total[:, None], WIDTH, PADDED)
    tl.store(sums + head.to(tl.int64) * rows + first_row + query, largest + tl.log2(total), mask=query < queries)
