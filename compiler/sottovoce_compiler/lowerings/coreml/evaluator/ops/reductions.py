"""Operations that take axes away."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def reduce_mean(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.mean(dim=_axes(x, axes), keepdim=_flag(keep_dims))


def reduce_max(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return torch.amax(x, dim=_axes(x, axes), keepdim=_flag(keep_dims))


def reduce_sum(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.sum(dim=_axes(x, axes), keepdim=_flag(keep_dims), dtype=x.dtype)


def _axes(x: Tensor, axes: Tensor | None) -> list[int]:
    return list(range(x.dim())) if axes is None else [int(one) for one in axes]


def _flag(value: Tensor | None) -> bool:
    return value is not None and bool(value)


OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "reduce_mean": reduce_mean,
    "reduce_max": reduce_max,
    "reduce_sum": reduce_sum,
}
