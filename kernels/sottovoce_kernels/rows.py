"""Rows of values, a few at a time on a CPU: intermediate values then stay in its cache, and are never all there.

What the references of the row-wise operations have in common. Knows no operation.
"""

from collections.abc import Iterator

import torch

CHUNK = 2**19  # values of an intermediate on a CPU, 2 MB in float32: smaller ones pay for calls, larger ones for memory


def wide(dtype: torch.dtype) -> torch.dtype:
    """What values of `dtype` are computed in: float32, or `dtype` where it is as wide."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def chunks(x: torch.Tensor) -> Iterator[slice]:
    """Slices of the rows of `x` (T, ...): on a CPU of CHUNK values or one row, elsewhere all at once."""
    step = _step(x)
    for begin in range(0, x.shape[0], step):
        yield slice(begin, min(begin + step, x.shape[0]))


def buffers(x: torch.Tensor, count: int) -> torch.Tensor:
    """(count, rows of a chunk, ...) to write intermediate values of one chunk after the other into: memory that was
    just allocated is slow to write."""
    return x.new_empty((count, min(_step(x), x.shape[0]), *x.shape[1:]), dtype=wide(x.dtype))


def _step(x: torch.Tensor) -> int:
    values = max(1, x.numel() // max(1, x.shape[0]))
    return max(1, CHUNK // values) if x.device.type == "cpu" else max(1, x.shape[0])
