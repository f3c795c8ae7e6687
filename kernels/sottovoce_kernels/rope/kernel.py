# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""rope on a GPU: a program turns all heads of one token, queries and keys, with one reading of its angles."""

import torch
import triton
import triton.language as tl

WARPS = ((512, 2), (2048, 4), (4096, 8))  # values of a token's half heads up to which so many warps are enough
MOST_WARPS = 16


@triton.jit
def turn(x, y, token, heads, token_stride, head_stride, c, s, D, HALF, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, BLOCK)[None, :]
    mask = (head < heads) & (column < HALF)
    here = x + token * token_stride + head * head_stride + column
    there = y + (token * heads + head) * D + column
    near = tl.load(here, mask=mask, other=0.0).to(tl.float32)
    far = tl.load(here + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(there, (near * c - far * s).to(y.dtype.element_ty), mask=mask)
    tl.store(there + HALF, (far * c + near * s).to(y.dtype.element_ty), mask=mask)


@triton.jit
def keep(x, y, token, heads, token_stride, head_stride, D, HALF, HEADS: tl.constexpr, REST: tl.constexpr):
    head, column = tl.arange(0, HEADS)[:, None], 2 * HALF + tl.arange(0, REST)[None, :]
    mask = (head < heads) & (column < D)
    values = tl.load(x + token * token_stride + head * head_stride + column, mask=mask)
    tl.store(y + (token * heads + head) * D + column, values, mask=mask)


@triton.jit
def rope_turn(
    q, k, cos, sin, positions, q_out, k_out, q_heads, k_heads, D, HALF, q_stride, q_head_stride, k_stride,
    k_head_stride, direction, Q_HEADS: tl.constexpr, K_HEADS: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    at = token
    if positions is not None:
        at = tl.load(positions + token).to(tl.int64)
    column = tl.arange(0, BLOCK)[None, :]
    c = tl.load(cos + at * HALF + column, mask=column < HALF, other=0.0).to(tl.float32)
    s = tl.load(sin + at * HALF + column, mask=column < HALF, other=0.0).to(tl.float32) * direction
    turn(q, q_out, token, q_heads, q_stride, q_head_stride, c, s, D, HALF, Q_HEADS, BLOCK)
    turn(k, k_out, token, k_heads, k_stride, k_head_stride, c, s, D, HALF, K_HEADS, BLOCK)
    if REST > 0:
        keep(q, q_out, token, q_heads, q_stride, q_head_stride, D, HALF, Q_HEADS, REST)
        keep(k, k_out, token, k_heads, k_stride, k_head_stride, D, HALF, K_HEADS, REST)


def forward(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference's."""
    return _turned(q, k, cos, sin, positions, 1.0)


def backward(
    grad_q: torch.Tensor, grad_k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference's."""
    return _turned(grad_q, grad_k, cos, sin, positions, -1.0)


def _turned(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None,
    direction: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    q, k = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k))
    (tokens, q_heads, width), k_heads, half = q.shape, k.shape[1], cos.shape[1]
    q_out, k_out = q.new_empty(q.shape), k.new_empty(k.shape)
    rest = width - 2 * half
    sizes = [triton.next_power_of_2(max(1, size)) for size in (q_heads, k_heads, half)]
    if tokens:
        rope_turn[(tokens,)](
            q, k, cos.contiguous(), sin.contiguous(), positions, q_out, k_out, q_heads, k_heads, width, half,
            q.stride(0), q.stride(1), k.stride(0), k.stride(1), direction, *sizes,
            REST=triton.next_power_of_2(rest) if rest else 0, num_warps=_warps(sizes[0] * sizes[2]),
            enable_fp_fusion=True,
        )  # fmt: skip
    return q_out, k_out


def _warps(values: int) -> int:
    return next((warps for most, warps in WARPS if values <= most), MOST_WARPS)
