"""What attention's kernels share on the device: blocks of rows, what a query sees, scores, and where blocks begin."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl


@triton.jit
def load(base, row, stride, count, WIDTH: tl.constexpr, PADDED: tl.constexpr, CHECKED: tl.constexpr):
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
def store(base, row, stride, count, values, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    column = tl.arange(0, PADDED)
    at = base + row[:, None] * stride + column[None, :]
    tl.store(at, values.to(base.dtype.element_ty), mask=(row < count)[:, None] & (column < WIDTH)[None, :])


@triton.jit
def seen(query, key, count, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Whether a query sees a key; `query` and `key` broadcast against each other, `count` keys are there."""
    visible = key < count
    if CAUSAL:
        visible = visible & (key <= query)
    if WINDOWED:
        visible = visible & (key > query - window)
    return visible


@triton.jit
def scores_of(product, bias, scale, softcap, CAPPED: tl.constexpr):
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
def range_of_keys(
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
def range_of_queries(
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
