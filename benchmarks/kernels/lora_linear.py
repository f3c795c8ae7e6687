"""lora_linear, forward and backward, beside its parts one after the other; on a CPU also beside PEFT's layer.

python benchmarks/kernels/lora_linear.py [--device cpu]

The parts are: a quantized weight decoded, torch's matrix product, and the adapter's two products added to it.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from harness import Case, Run, forward_backward, main
from torch import Tensor
from torch.nn import functional

from sottovoce_kernels.lora_linear import Projection, lora_linear
from sottovoce_kernels.quantized import QuantizedWeight, quantize

RANK = 16
SCALE = 2.0


@dataclass(frozen=True)
class Shape:
    """Layers that share an input of `width`: their `outputs`, and whether they have biases."""

    name: str
    width: int
    outputs: tuple[int, ...]
    bias: bool = False


SMALL = (
    Shape("135M: q, k, v", 576, (576, 192, 192)),
    Shape("135M: gate, up", 576, (1536, 1536)),
    Shape("135M: down", 1536, (576,)),
)
LARGE = (
    Shape("1B: q, k, v", 2048, (2048, 512, 512)),
    Shape("1B: gate, up", 2048, (8192, 8192)),
    Shape("1B: down", 8192, (2048,)),
    Shape("Whisper large: q, v", 1280, (1280, 1280), bias=True),
)
SHAPES = {"cuda": (*SMALL, *LARGE), "cpu": SMALL}
ROWS = {"cuda": (2048, 4096, 8192, 16384), "cpu": (2048,)}
DTYPES = {"cuda": (torch.bfloat16,), "cpu": (torch.bfloat16, torch.float32)}
KINDS = {"cuda": ("dense", "int8", "fp8", "nf4", "q4_0"), "cpu": ("dense", "int8", "nf4")}


class Decoded(torch.autograd.Function):
    """A product with a quantized weight that is decoded for each of its two uses, as bitsandbytes does it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedWeight) -> Tensor:
        ctx.weight = weight
        return functional.linear(x, weight.dequantize(x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ ctx.weight.dequantize(dy.dtype), None


def parts(x: Tensor, projection: Projection) -> Tensor:
    """One layer from its parts; the adapter in the dtype of x."""
    if isinstance(projection.weight, QuantizedWeight):
        y = Decoded.apply(x, projection.weight)
        y = y if projection.bias is None else y + projection.bias
    else:
        y = functional.linear(x, projection.weight, projection.bias)
    assert projection.a is not None and projection.b is not None
    narrow = functional.linear(x, projection.a.to(x.dtype))
    return y + functional.linear(narrow, projection.b.to(x.dtype)) * projection.scale


def projections_of(shape: Shape, kind: str, dtype: torch.dtype, device: torch.device) -> list[Projection]:
    """Random layers; adapters in float32."""
    made = []
    for outputs in shape.outputs:
        weight: Tensor | QuantizedWeight = torch.randn(outputs, shape.width, device=device, dtype=dtype) / 24
        if kind != "dense":
            weight = quantize(weight, kind)
        bias = torch.randn(outputs, device=device, dtype=dtype) if shape.bias else None
        a, b = (torch.randn(size, device=device, requires_grad=True) for size in ((RANK, shape.width), (outputs, RANK)))
        made.append(Projection(weight, bias, a, b, SCALE))
    return made


def peft(x: Tensor, projections: Sequence[Projection], adapters: torch.dtype) -> Run:
    """PEFT's layers over the same weights, their adapters in this dtype; it takes float32 unless told not to."""
    from peft.tuners.lora import Linear, LoraConfig

    layers, trained = [], []
    for projection in projections:
        base = torch.nn.Linear(projection.inputs, projection.outputs, bias=False)
        base.weight = torch.nn.Parameter(projection.dense(x.dtype), requires_grad=False)
        alpha = int(SCALE * RANK)
        config = LoraConfig(r=RANK, lora_alpha=alpha, init_lora_weights=False)
        layer = Linear(base, "default", config, r=RANK, lora_alpha=alpha)
        layer.lora_A.to(adapters)
        layer.lora_B.to(adapters)
        layers.append(layer)
        trained += [*layer.lora_A.parameters(), *layer.lora_B.parameters()]
    return forward_backward(lambda x, *_: [layer(x) for layer in layers], x, *trained)


def systems_of(x: Tensor, projections: Sequence[Projection]) -> dict[str, Run]:
    """Ours first; PEFT's where it knows the weight, and has a CPU."""
    adapters = [tensor for projection in projections for tensor in (projection.a, projection.b)]
    systems = {
        "ours": forward_backward(lambda x, *_: lora_linear(x, projections), x, *adapters),
        "parts": forward_backward(lambda x, *_: [parts(x, projection) for projection in projections], x, *adapters),
    }
    if x.device.type == "cpu" and projections[0].kind == "dense":
        systems["PEFT"] = peft(x, projections, torch.float32)
        if x.dtype != torch.float32:
            systems["PEFT, adapters in 16 bits"] = peft(x, projections, x.dtype)
    return systems


def work(rows: int, shape: Shape, projections: Sequence[Projection], dtype: torch.dtype) -> tuple[int, int]:
    """Bytes: x and weights read, y written; dy, weights and x read, dx written. Operations: two products with each
    weight, six with each adapter."""
    outputs = sum(shape.outputs)
    weights = sum(projection.weight.nbytes for projection in projections)
    moved = rows * (3 * shape.width + 2 * outputs) * dtype.itemsize + 2 * weights
    adapters = 6 * RANK * (shape.width * len(projections) + outputs)
    return moved, rows * (4 * shape.width * outputs + adapters)


def cases(device: torch.device) -> Iterator[Case]:
    """Every shape, kind of weight and number of rows."""
    for dtype in DTYPES[device.type]:
        for shape in SHAPES[device.type]:
            for kind in KINDS[device.type]:
                projections = projections_of(shape, kind, dtype, device)
                for rows in ROWS[device.type]:
                    x = torch.randn(rows, shape.width, device=device, dtype=dtype, requires_grad=True)
                    moved, operations = work(rows, shape, projections, dtype)
                    name = f"{shape.name}, {kind}, {rows} rows, {dtype}".replace("torch.", "")
                    yield Case(name, systems_of(x, projections), moved, operations, dtype)


if __name__ == "__main__":
    sys.exit(main("lora_linear", cases))
