"""gelu_bias, with a frozen bias and without one, beside the sum and the activation by themselves.

python benchmarks/kernels/gelu_bias.py [--device cpu]
"""

import sys
from collections.abc import Iterator
from functools import partial

import torch
from harness import Case, forward_backward, main
from torch.nn import functional

from sottovoce_kernels.gelu_bias import gelu_bias

SHAPES = {"cuda": ((12000, 1536), (12000, 5120)), "cpu": ((1500, 1536), (1500, 5120))}
DTYPES = {"cuda": (torch.bfloat16,), "cpu": (torch.bfloat16, torch.float32)}


def composed(x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """As models have it, the bias outside of the projection."""
    return functional.gelu(x if bias is None else x + bias)


def cases(device: torch.device) -> Iterator[Case]:
    """One read and one written forward, two read and one written backward; about 30 operations a value."""
    for dtype in DTYPES[device.type]:
        random = partial(torch.randn, device=device, dtype=dtype)
        for tokens, width in SHAPES[device.type]:
            x = random(tokens, width, requires_grad=True)
            for bias, what in ((random(width), "with a bias"), (None, "without")):
                systems = {
                    "ours": forward_backward(gelu_bias, x, bias),
                    "composed": forward_backward(composed, x, bias),
                }
                name = f"{tokens} x {width} {what}, {dtype}".replace("torch.", "")
                yield Case(name, systems, 5 * tokens * width * dtype.itemsize, 30 * tokens * width, torch.float32)


if __name__ == "__main__":
    sys.exit(main("gelu_bias", cases))
