"""rope in plain torch; the CPU's path. Keeps nothing of its inputs but the tables of angles."""

import torch

from sottovoce_kernels.rows import buffers, chunks


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
    """x cos + (x with its halves swapped) (-sin, sin): whole heads at once, for halves of them are slow to go over."""
    half = cos.shape[1]
    result = x.new_empty(x.shape)
    if 2 * half < x.shape[2]:
        result[..., 2 * half :] = x[..., 2 * half :]
    (work,) = buffers(x[..., : 2 * half], 1)
    both = torch.stack((-sin, sin) if direction > 0 else (sin, -sin), 1).flatten(1).to(work.dtype)
    same = torch.stack((cos, cos), 1).flatten(1).to(work.dtype)
    for rows in chunks(x):
        values = work[: rows.stop - rows.start].copy_(x[rows, :, : 2 * half])
        at = rows if positions is None else positions[rows]
        swapped = values.roll(half, 2)
        result[rows, :, : 2 * half] = values.mul_(same[at, None]).addcmul_(swapped, both[at, None])
    return result
