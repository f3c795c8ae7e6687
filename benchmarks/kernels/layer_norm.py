"""layer_norm with the residual sum before it, frozen parameters, beside torch's.

python benchmarks/kernels/layer_norm.py [--device cpu]
"""

import sys
from collections.abc import Iterator
from functools import partial

import torch
from harness import Case, forward_backward, main

from sottovoce_kernels.layer_norm import layer_norm

EPS = 1e-5
SHAPES = {"cuda": ((12000, 384), (12000, 1280)), "cpu": ((1500, 384), (1500, 1280))}
DTYPES = {"cuda": (torch.bfloat16,), "cpu": (torch.bfloat16, torch.float32)}
Pair = tuple[torch.Tensor, torch.Tensor]


def builtin(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Pair:
    """The sum, and torch's function of it."""
    total = x + residual
    return torch.nn.functional.layer_norm(total, weight.shape, weight, bias, EPS), total


def ours(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Pair:
    """By ours."""
    return layer_norm(x, weight, bias, EPS, residual=residual)


def cases(device: torch.device) -> Iterator[Case]:
    """Two rows read and two written forward; three read and one written backward."""
    for dtype in DTYPES[device.type]:
        random = partial(torch.randn, device=device, dtype=dtype)
        for tokens, width in SHAPES[device.type]:
            inputs = (*(random(tokens, width, requires_grad=True) for _ in range(2)), random(width), random(width))
            systems = {"ours": forward_backward(ours, *inputs), "torch": forward_backward(builtin, *inputs)}
            name = f"{tokens} x {width}, {dtype}".replace("torch.", "")
            yield Case(name, systems, 8 * tokens * width * dtype.itemsize, 22 * tokens * width, torch.float32)


if __name__ == "__main__":
    sys.exit(main("layer_norm", cases))
