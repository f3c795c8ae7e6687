"""rms_norm with the residual sum before it, frozen weight, beside the composition that models in torch have.

python benchmarks/kernels/rms_norm.py [--device cpu]
"""

import sys
from collections.abc import Iterator
from functools import partial

import torch
from harness import Case, forward_backward, main

from sottovoce_kernels.rms_norm import rms_norm

EPS = 1e-5
SHAPES = {"cuda": ((8192, 576), (8192, 2048), (8192, 4096)), "cpu": ((2048, 576), (2048, 2048))}
DTYPES = {"cuda": (torch.bfloat16,), "cpu": (torch.bfloat16, torch.float32)}


def composed(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As models have it: in float32 up to the weight."""
    total = x + residual
    wide = total.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)
    return weight * normed.to(x.dtype), total


def builtin(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By torch's own function."""
    total = x + residual
    return torch.nn.functional.rms_norm(total, weight.shape, weight, EPS), total


def ours(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By ours."""
    return rms_norm(x, weight, EPS, residual=residual)


def cases(device: torch.device) -> Iterator[Case]:
    """Two rows read and two written forward; three read and one written backward."""
    for dtype in DTYPES[device.type]:
        random = partial(torch.randn, device=device, dtype=dtype)
        for tokens, width in SHAPES[device.type]:
            inputs = (*(random(tokens, width, requires_grad=True) for _ in range(2)), random(width))
            systems = {
                "ours": forward_backward(ours, *inputs),
                "composed": forward_backward(composed, *inputs),
                "torch.rms_norm": forward_backward(builtin, *inputs),
            }
            name = f"{tokens} x {width}, {dtype}".replace("torch.", "")
            yield Case(name, systems, 8 * tokens * width * dtype.itemsize, 16 * tokens * width, torch.float32)


if __name__ == "__main__":
    sys.exit(main("rms_norm", cases))
