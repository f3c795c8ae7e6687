"""What the benchmarks of swiglu and geglu have in common: shapes, and what has to be moved."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Case, forward_backward

SHAPES = {"cuda": ((8192, 1536), (8192, 8192), (8192, 14336)), "cpu": ((2048, 1536), (2048, 8192))}
DTYPES = {"cuda": (torch.bfloat16,), "cpu": (torch.bfloat16, torch.float32)}

Op = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cases(ours: Op, composed: Op, device: torch.device) -> Iterator[Case]:
    """Two read and one written forward, three read and two written backward; about 30 operations a value."""
    for dtype in DTYPES[device.type]:
        random = partial(torch.randn, device=device, dtype=dtype, requires_grad=True)
        for tokens, width in SHAPES[device.type]:
            inputs = (random(tokens, width), random(tokens, width))
            systems = {"ours": forward_backward(ours, *inputs), "composed": forward_backward(composed, *inputs)}
            name = f"{tokens} x {width}, {dtype}".replace("torch.", "")
            yield Case(name, systems, 8 * tokens * width * dtype.itemsize, 30 * tokens * width, torch.float32)
