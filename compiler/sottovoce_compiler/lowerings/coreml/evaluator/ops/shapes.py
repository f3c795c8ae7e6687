"""Operations that move values without computing any."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """0 keeps a size, -1 is what is left."""
    return x.reshape([x.shape[at] if size == 0 else size for at, size in enumerate(shape.tolist())])


def transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(perm.tolist())


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    for axis in sorted(axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


def concat(values: Sequence[Tensor], axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    if interleave is not None and bool(interleave):
        raise NotImplementedError("concat that interleaves")
    return torch.cat([one for one in values], dim=int(axis))


def split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, split_sizes.tolist(), dim=int(axis))
    assert num_splits is not None
    return torch.chunk(x, int(num_splits), dim=int(axis))


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    return x[_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]


def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
    in_place: bool = False,
) -> Tensor:
    """`x` with `update` in the place of the slice. `in_place` says that nobody needs what `x` was."""
    made = x if in_place else x.clone()
    at = _slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if made[at].shape != update.shape:
        raise ValueError(f"slice_update of {tuple(made[at].shape)} with {tuple(update.shape)}")
    made[at] = update
    return made


def _slices(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> tuple[Any, ...]:
    def of(mask: Tensor | None, axis: int) -> bool:
        return mask is not None and bool(mask[axis])

    if stride is not None and any(step < 1 for step in stride.tolist()):
        raise NotImplementedError(f"a slice with stride {stride.tolist()}")
    found: list[Any] = []
    for axis in range(x.dim()):
        first = 0 if of(begin_mask, axis) else int(begin[axis])
        if of(squeeze_mask, axis):
            found.append(first)
            continue
        last = None if of(end_mask, axis) else int(end[axis])
        found.append(slice(first, last, 1 if stride is None else int(stride[axis])))
    return tuple(found)


def gather(
    x: Tensor, indices: Tensor, axis: Tensor | None = None, batch_dims: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if batch_dims is not None and int(batch_dims):
        raise NotImplementedError(f"gather with batch_dims {int(batch_dims)}")
    at = 0 if axis is None else int(axis) % x.dim()
    rows = torch.index_select(x, at, indices.reshape(-1).long())
    return rows.reshape(*x.shape[:at], *indices.shape, *x.shape[at + 1 :])


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "reshape": reshape,
    "transpose": transpose,
    "expand_dims": expand_dims,
    "squeeze": squeeze,
    "concat": concat,
    "split": split,
    "slice_by_index": slice_by_index,
    "slice_update": slice_update,
    "gather": gather,
}
