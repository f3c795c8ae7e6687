"""A frozen weight in few bits: made, decoded, moved between devices and taken apart into plain tensors.

Knows which tensors a weight has and which backend decodes it. The arithmetic of a kind is in `formats`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sottovoce_kernels.backend import Backend, choose

from .formats import FORMATS, Format, Kind, decode_scales, encode_scales

CHUNK = 1 << 17  # values decoded at a time on a CPU: what lies between stays in the second-level cache


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """A matrix of `shape` (N, K). `data` (N, K / values per element): int8, float8_e4m3fn, or uint8 with two values a
    byte. `scales`: (N,) float32 for int8 and fp8; (N, blocks) float32 for nf4, int8 where they are quantized
    themselves, and `outer` (2, groups) float32 says how; (N, blocks) float16 for q4_0.

    As state of a module: `tensors()` are what it registers, `from_tensors` makes a weight of them again.
    """

    kind: Kind
    shape: tuple[int, int]
    data: Tensor
    scales: Tensor
    outer: Tensor | None = None

    @property
    def block(self) -> int | None:
        """Columns that share a scale; None where a whole row does."""
        return FORMATS[self.kind].block

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.data.device

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name: "data", "scales", and "outer" where there is one."""
        found = {"data": self.data, "scales": self.scales}
        return found if self.outer is None else {**found, "outer": self.outer}

    @classmethod
    def from_tensors(cls, kind: Kind, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> "QuantizedWeight":
        """The weight whose `tensors()` these are, on whatever device. Raises ValueError where they do not fit."""
        weight = cls(kind, shape, tensors["data"], tensors["scales"], tensors.get("outer"))
        expected = (shape[0], _format(kind).columns(shape[1]) // _format(kind).packed)
        if tuple(weight.data.shape) != expected:
            raise ValueError(f"data {tuple(weight.data.shape)} of a {kind} weight {shape}; it has {expected}")
        return weight

    def to(self, device: torch.device | str) -> "QuantizedWeight":
        """The same on another device; itself where it is there already."""
        outer = None if self.outer is None else self.outer.to(device)
        return replace(self, data=self.data.to(device), scales=self.scales.to(device), outer=outer)

    def float_scales(self) -> Tensor:
        """Its scales as float32, decoded where they are quantized."""
        return self.scales.to(torch.float32) if self.outer is None else decode_scales(self.scales, self.outer)

    def dequantize(self, dtype: torch.dtype = torch.float32, *, backend: Backend | None = None) -> Tensor:
        """The matrix, (N, K), decoded in float32 and rounded once to `dtype`."""
        if choose(backend, self.data) == "triton":
            from .kernel import dequantize

            return dequantize(self, dtype)
        return self._decoded(dtype)

    def _decoded(self, dtype: torch.dtype) -> Tensor:
        rows, columns = self.shape
        matrix = torch.empty(rows, columns, dtype=dtype, device=self.device)
        scales, decode = self.float_scales(), FORMATS[self.kind].decode
        step = max(1, CHUNK // max(1, columns)) if self.device.type == "cpu" else max(1, rows)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            matrix[part] = decode(self.data[part], scales[part])[:, :columns]
        return matrix


def quantize(weight: Tensor, kind: Kind, *, double: bool = False) -> QuantizedWeight:
    """`weight` (N, K), floating point, to the nearest of what `kind` has, on the weight's device.

    `double` quantizes the scales of nf4 as well: 4.13 bits a value in place of 4.5. Raises ValueError for an unknown
    kind, for weights that are not a matrix of finite numbers, for rows that q4_0 has no whole blocks for, and for
    `double` with another kind than nf4.
    """
    form = _format(kind)
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(f"a weight of shape {tuple(weight.shape)} and {weight.dtype}; a matrix of floats is quantized")
    if double and kind != "nf4":
        raise ValueError(f"scales of {kind} are not quantized themselves; only those of nf4 are")
    rows, columns = weight.shape
    values = weight.detach().to(torch.float32)
    values = torch.nn.functional.pad(values, (0, form.columns(columns) - columns)).contiguous()
    data, scales = form.encode(values)
    if not torch.isfinite(scales).all():
        raise ValueError("a weight is infinite, not a number or too large for its scale; the model is damaged")
    outer = None
    if double:
        scales, outer = encode_scales(scales)
    return QuantizedWeight(kind, (rows, columns), data, scales, outer)


def _format(kind: Kind) -> Format:
    if kind not in FORMATS:
        raise ValueError(f"no kind of quantized weight is called {kind!r}; there are {', '.join(FORMATS)}")
    return FORMATS[kind]
