"""attention over packed sequences, beside torch's padded and segment by segment, and flash-attn where it is installed.

python benchmarks/kernels/attention.py [--device cpu]
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from harness import Case, forward_backward, main
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from sottovoce_kernels.attention import attention, flash
from sottovoce_kernels.attention.mask import Mask
from sottovoce_kernels.segments import Segments

VARIED = (17, 300, 45, 120, 9, 600, 77, 240, 160, 33, 447)


@dataclass(frozen=True)
class Shape:
    """Lengths of segments, heads, heads of keys, width of a head, and whether it is causal."""

    lengths: tuple[int, ...]
    heads: int
    shared: int
    width: int
    causal: bool = True
    window: int | None = None


SHAPES = {
    "cuda": {
        "135M, varied": Shape(VARIED * 4, 9, 3, 64),
        "1B, varied": Shape(VARIED * 4, 32, 8, 64),
        "8B, 4 x 2048": Shape((2048,) * 4, 32, 8, 128),
        "Gemma 3 270M, windows of 512": Shape((2048,) * 4, 4, 1, 256, window=512),
        "Whisper large-v3's encoder": Shape((1500,) * 4, 20, 20, 64, causal=False),
    },
    "cpu": {
        "135M, varied": Shape(VARIED, 9, 3, 64),
        "135M, 16 x 128": Shape((128,) * 16, 9, 3, 64),
        "135M, 64 x 32": Shape((32,) * 64, 9, 3, 64),
        "135M, 4 x 512": Shape((512,) * 4, 9, 3, 64),
        "135M, 2 x 1024": Shape((1024,) * 2, 9, 3, 64),
        "Gemma 3 270M, window of 512": Shape((1100,), 4, 1, 256, window=512),
        "Whisper tiny's encoder": Shape((1500,), 6, 6, 64, causal=False),
    },
}

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(shape: Shape, segments: Segments, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """By ours: our kernel on a GPU, whatever else is installed; the reference on a CPU."""
    backend = "triton" if q.is_cuda else "reference"
    return attention(
        q, k, v, segments, causal=shape.causal, scale=shape.width**-0.5, window=shape.window, backend=backend
    )


def apart(shape: Shape, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's, segment by segment."""
    outs = []
    for parts in zip(*(torch.split(one, shape.lengths) for one in (q, k, v)), strict=True):
        outs.append(_in_torch(shape, *(part.transpose(0, 1)[None] for part in parts))[0].transpose(0, 1))
    return torch.cat(outs)


def padded(shape: Shape, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's, all segments as long as the longest, as a batch has them without packing; padding comes behind, where
    causal attention does not see it."""
    by_segment = (pad_sequence(torch.split(one, shape.lengths), batch_first=True) for one in (q, k, v))
    return _in_torch(shape, *(one.transpose(1, 2) for one in by_segment))


def _in_torch(shape: Shape, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    seen = None
    if shape.window is not None:
        square = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device)
        seen = square.tril().triu(1 - shape.window)
    return functional.scaled_dot_product_attention(
        q, k, v, seen, is_causal=shape.causal and seen is None, enable_gqa=q.shape[1] != k.shape[1]
    )


def by_flash_attn(shape: Shape, segments: Segments, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """flash-attn's, for packed sequences."""
    return flash.attention(q, k, v, segments, segments, Mask(shape.causal, shape.width**-0.5, shape.window))


def cases(device: torch.device) -> Iterator[Case]:
    """Two products of what is seen forward, five backward; q, k, v, the result and their gradients moved once, and
    twice what the backward reads again."""
    for name, shape in SHAPES[device.type].items():
        segments = Segments.of(shape.lengths, device)
        random = partial(torch.randn, device=device, dtype=torch.bfloat16, requires_grad=True)
        inputs = tuple(
            random(segments.total, heads, shape.width) for heads in (shape.heads, shape.shared, shape.shared)
        )
        systems: dict[str, Attend] = {"ours": partial(ours, shape, segments), "torch, apart": partial(apart, shape)}
        if len(set(shape.lengths)) > 1:
            systems["torch, padded"] = partial(padded, shape)
        if device.type == "cuda" and find_spec("flash_attn"):
            systems["flash-attn"] = partial(by_flash_attn, shape, segments)
        runs = {system: forward_backward(attend, *inputs) for system, attend in systems.items()}
        moved = 2 * sum(one.nbytes for one in inputs) + 5 * inputs[0].nbytes + 2 * sum(one.nbytes for one in inputs[1:])
        yield Case(name, runs, moved, 14 * seen(shape) * shape.heads * shape.width, torch.bfloat16)


def seen(shape: Shape) -> int:
    """Pairs of a query and a key that it sees."""
    if not shape.causal:
        return sum(length**2 for length in shape.lengths)
    window = shape.window or max(shape.lengths)
    return sum(sum(min(position, window) for position in range(1, length + 1)) for length in shape.lengths)


if __name__ == "__main__":
    sys.exit(main("attention", cases))
