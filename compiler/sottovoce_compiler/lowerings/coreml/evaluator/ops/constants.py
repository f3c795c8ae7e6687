"""Constants, plain and compressed."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sottovoce_compiler.lowerings.coreml.evaluator.blobs import unpacked


def const(val: Any) -> Any:
    return val


def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    """(codes - zero point) * scale, along one axis where they are vectors."""
    shape = [1] * quantized_data.dim()
    shape[int(axis)] = -1
    zero, factor = (one.float().reshape(shape) if one.dim() else one.float() for one in (zero_point, scale))
    return (quantized_data.float() - zero) * factor


def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: Tensor | None = None
) -> Tensor:
    """Values of a table. Before iOS 18: `indices` packed, one table, and the `shape`; from then on a table for each
    block of `indices`, (blocks along each axis..., values, 1)."""
    if shape is not None:
        sizes = [int(size) for size in shape]
        bits, count = int(lut.numel() - 1).bit_length(), 1
        for size in sizes:
            count *= size
        codes = torch.from_numpy(unpacked(indices.numpy(), bits, count)) if bits < 8 else indices
        return lut.float()[codes.long()].reshape(sizes)
    if lut.shape[-1] != 1 or lut.dim() != indices.dim() + 2:
        raise NotImplementedError("constexpr_lut_to_dense of vectors")
    tables = _repeated(lut[..., 0], indices.shape)
    return torch.gather(tables, -1, indices.long()[..., None])[..., 0].float()


def _repeated(tables: Tensor, shape: torch.Size) -> Tensor:
    """Each table as often as it has values."""
    for axis, size in enumerate(shape):
        tables = tables.repeat_interleave(size // tables.shape[axis], dim=axis)
    return tables


def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """(codes - offset) * scale, one of each a block along every axis."""
    values = data.float() if offset is None else data.float() - _spread(offset.float(), data.shape)
    return values * _spread(scale.float(), data.shape)


def _spread(blocks: Tensor, shape: torch.Size) -> Tensor:
    for axis, size in enumerate(shape):
        if blocks.shape[axis] not in (1, size):
            blocks = blocks.repeat_interleave(size // blocks.shape[axis], dim=axis)
    return blocks


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "const": const,
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_lut_to_dense": constexpr_lut_to_dense,
    "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
}
