"""rope of queries and keys together, beside the composition that models in torch have.

python benchmarks/kernels/rope.py [--device cpu]
"""

import sys
from collections.abc import Iterator
from functools import partial

import torch
from harness import Case, forward_backward, main

from sottovoce_kernels.rope import rope

# tokens, heads of q, heads of k, width of a head
SHAPES = {
    "cuda": ((8192, 9, 3, 64), (8192, 32, 8, 64), (8192, 32, 8, 128)),
    "cpu": ((2048, 9, 3, 64), (2048, 32, 8, 64)),
}
DTYPES = {"cuda": (torch.bfloat16,), "cpu": (torch.bfloat16, torch.float32)}


def composed(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """As models have it, in the dtype of q."""
    table = [torch.cat((one, one), -1)[:, None].to(q.dtype) for one in (cos, sin)]
    return tuple(x * table[0] + _turned(x) * table[1] for x in (q, k))


def _turned(x: torch.Tensor) -> torch.Tensor:
    near, far = x.chunk(2, -1)
    return torch.cat((-far, near), -1)


def cases(device: torch.device) -> Iterator[Case]:
    """Everything read and written once forward, and once backward."""
    for dtype in DTYPES[device.type]:
        random = partial(torch.randn, device=device)
        for tokens, heads, kv_heads, width in SHAPES[device.type]:
            q, k = (random(tokens, n, width, dtype=dtype, requires_grad=True) for n in (heads, kv_heads))
            inputs = (q, k, random(tokens, width // 2), random(tokens, width // 2))
            systems = {"ours": forward_backward(rope, *inputs), "composed": forward_backward(composed, *inputs)}
            values = tokens * (heads + kv_heads) * width
            name = f"{tokens} x {heads} + {kv_heads} heads of {width}, {dtype}".replace("torch.", "")
            moved = 4 * values * dtype.itemsize + 2 * tokens * width * 4
            yield Case(name, systems, moved, 6 * values, torch.float32)


if __name__ == "__main__":
    sys.exit(main("rope", cases))
