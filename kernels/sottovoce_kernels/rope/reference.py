"""rope in plain torch; the CPU's path. Keeps nothing of its inputs but the tables of angles."""

import torch

from sottovoce_kernels.rows import chunks, wide


def forward(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """q (T, H, D) and k (T, Hk, D) turned by the angles of their positions.

    cos, sin (T, width/2), or (n, width/2) of which row positions[t] is token t's. Computed in float32, float64 in
    float64.
    """
    return _turned(q, cos, sin, positions, 1), _turned(k, cos, sin, positions, 1)


def backward(
    grad_q: torch.Tensor, grad_k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of q and k: what came in, turned back."""
    return _turned(grad_q, cos, sin, positions, -1), _turned(grad_k, cos, sin, positions, -1)


def _turned(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None, direction: int
) -> torch.Tensor:
    dtype, half = wide(x.dtype), cos.shape[1]
    result = x.new_empty(x.shape)
    if 2 * half < x.shape[2]:
        result[..., 2 * half :] = x[..., 2 * half :]
    for rows in chunks(x):
        near, far = x[rows, :, :half].to(dtype), x[rows, :, half : 2 * half].to(dtype)
        at = rows if positions is None else positions[rows]
        c, s = cos[at].to(dtype)[:, None], sin[at].to(dtype)[:, None]
        result[rows, :, :half] = torch.mul(near, c).addcmul_(far, s, value=-direction)
        result[rows, :, half : 2 * half] = torch.mul(far, c).addcmul_(near, s, value=direction)
    return result
