"""One linear layer as `lora_linear` takes it: frozen weight and bias, and an adapter or none."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sottovoce_kernels.quantized import QuantizedWeight


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """`weight` (N, K), plain or quantized, and `bias` (N,) are frozen. The adapter (Hu et al. 2021, arXiv 2106.09685,
    section 4.1) is `a` (r, K) and `b` (N, r), trained, float32 as a rule, or None both; `scale` is alpha / r, or
    alpha / sqrt(r) for rsLoRA."""

    weight: Tensor | QuantizedWeight
    bias: Tensor | None = None
    a: Tensor | None = None
    b: Tensor | None = None
    scale: float = 1.0

    @property
    def outputs(self) -> int:
        """N."""
        return int(self.weight.shape[0])

    @property
    def inputs(self) -> int:
        """K."""
        return int(self.weight.shape[1])

    @property
    def rank(self) -> int:
        """r; 0 without an adapter."""
        return 0 if self.a is None else int(self.a.shape[0])

    @property
    def kind(self) -> str:
        """Of a quantized weight its kind, else "dense"."""
        return self.weight.kind if isinstance(self.weight, QuantizedWeight) else "dense"

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weight in `dtype`: decoded now where it is quantized, else as it is."""
        return self.weight.dequantize(dtype) if isinstance(self.weight, QuantizedWeight) else self.weight

    def check(self, x: Tensor) -> None:
        """Raises ValueError where it does not go with itself or with `x` (..., K)."""
        outputs, inputs = self.weight.shape
        if x.shape[-1] != inputs:
            raise ValueError(f"an input of width {x.shape[-1]} for a weight {(outputs, inputs)}; it takes {inputs}")
        if isinstance(self.weight, Tensor) and self.weight.dtype != x.dtype:
            raise ValueError(f"a weight of {self.weight.dtype} for an input of {x.dtype}; cast one to the other's")
        for name, tensor in (("weight", self.weight), ("bias", self.bias)):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                raise ValueError(f"a {name} that requires a gradient, and is frozen here; call requires_grad_(False)")
        if (self.a is None) != (self.b is None):
            raise ValueError("an adapter of one matrix; it has both a and b, or neither")
        shapes = ((self.bias, (outputs,)), (self.a, (self.rank, inputs)), (self.b, (outputs, self.rank)))
        for tensor, shape in shapes:
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ValueError(f"a tensor {tuple(tensor.shape)} for a weight {(outputs, inputs)} has to be {shape}")
