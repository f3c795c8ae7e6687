"""lora_linear in plain torch, forward and backward by hand: what a CPU runs, and what the kernels are held against.

    S_i = x a_i^T                       all of them in one product
    y_i = x W_i^T + bias_i + s_i S_i b_i^T

    dS_i = s_i dy_i b_i                 db_i = s_i dy_i^T S_i
    dx = sum_i dy_i W_i + dS a          da = dS^T x, again all in one

No product of the size of an output but those with a frozen weight; sums are accumulated in place by the product itself.
A quantized weight is decoded when its product is due and forgotten.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .projection import Projection

Gradients = tuple[Tensor | None, list[tuple[Tensor | None, Tensor | None]]]


def forward(x: Tensor, projections: Sequence[Projection]) -> tuple[list[Tensor], Tensor | None]:
    """`x` (T, K) to one (T, N) a projection, and S (T, ranks together), None without adapters."""
    a = _stacked(projections, x.dtype)
    s = None if a is None else functional.linear(x, a)
    outputs = []
    for projection, columns in _columns(projections):
        y = functional.linear(x, projection.dense(x.dtype), projection.bias)
        if projection.b is not None and s is not None:
            y.addmm_(s[:, columns], projection.b.to(x.dtype).T, alpha=projection.scale)
        outputs.append(y)
    return outputs, s


def backward(
    grads: Sequence[Tensor | None],
    x: Tensor | None,
    s: Tensor | None,
    projections: Sequence[Projection],
    needs_x: bool,
    needs: Sequence[tuple[bool, bool]],
) -> Gradients:
    """`grads`: dy of each projection, (T, N), None where nothing came, but not all of them; `x` (T, K), None where no a
    wants a gradient; `s` as `forward` gave it, None where no b does; `needs`: whether a and b of each want one.

    Returns dx (T, K), and da (r, K) and db (N, r) of each projection, None for what is not wanted."""
    narrow = _narrowed_gradients(grads, projections) if needs_x or x is not None else None
    da = None if x is None or narrow is None else narrow.T @ x
    adapters: list[tuple[Tensor | None, Tensor | None]] = []
    for (projection, columns), dy, (needs_a, needs_b) in zip(_columns(projections), grads, needs, strict=True):
        part = da[columns] if da is not None and needs_a else None
        db = None
        if needs_b and dy is not None and s is not None and projection.b is not None:
            db = (dy.T @ s[:, columns]).to(projection.b.dtype).mul_(projection.scale)
        adapters.append((part, db))
    return _input_gradient(grads, narrow, projections) if needs_x else None, adapters


def _columns(projections: Sequence[Projection]) -> Iterator[tuple[Projection, slice]]:
    """Each projection with its columns of S."""
    begin = 0
    for projection in projections:
        yield projection, slice(begin, begin + projection.rank)
        begin += projection.rank


def _stacked(projections: Sequence[Projection], dtype: torch.dtype) -> Tensor | None:
    """All a one below the other, (ranks, K)."""
    parts = [projection.a for projection in projections if projection.a is not None]
    return torch.cat(parts).to(dtype) if parts else None


def _narrowed_gradients(grads: Sequence[Tensor | None], projections: Sequence[Projection]) -> Tensor | None:
    """dS (T, ranks), each part written where it belongs; None without adapters."""
    like = _present(grads)
    ranks = sum(projection.rank for projection in projections)
    if not ranks:
        return None
    narrow = like.new_empty(len(like), ranks)
    for (projection, columns), dy in zip(_columns(projections), grads, strict=True):
        part = narrow[:, columns]
        if dy is None:
            part.zero_()
        elif projection.b is not None:
            torch.addmm(part, dy, projection.b.to(like.dtype), beta=0, alpha=projection.scale, out=part)
    return narrow


def _input_gradient(grads: Sequence[Tensor | None], narrow: Tensor | None, projections: Sequence[Projection]) -> Tensor:
    like = _present(grads)
    dx = like.new_empty(len(like), projections[0].inputs)
    beta = 0  # the first product overwrites, the others add
    for projection, dy in zip(projections, grads, strict=True):
        if dy is not None:
            torch.addmm(dx, dy, projection.dense(like.dtype), beta=beta, out=dx)
            beta = 1
    a = _stacked(projections, like.dtype)
    return dx if narrow is None or a is None else dx.addmm_(narrow, a)


def _present(grads: Sequence[Tensor | None]) -> Tensor:
    """One of the gradients: how many rows there are, in which dtype and where."""
    return next(dy for dy in grads if dy is not None)
