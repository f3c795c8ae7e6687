"""Operations element by element."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_CASTS = {"fp16": torch.float32, "fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}


def cast(x: Tensor, dtype: str) -> Tensor:
    """float16 is held in float32, and rounded by the caller."""
    return x.to(_CASTS[dtype])


def identity(x: Tensor) -> Tensor:
    return x


def log(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return torch.log(x + (1e-45 if epsilon is None else epsilon))


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    approximate = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode]
    return torch.nn.functional.gelu(x, approximate=approximate)


def rsqrt(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return torch.rsqrt(x + (1e-12 if epsilon is None else epsilon))


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


def _two(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """An operation of `x` and `y`, which are broadcast."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        return of(x, y)

    return run


OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "cast": cast,
    "identity": identity,
    "log": log,
    "gelu": gelu,
    "rsqrt": rsqrt,
    "select": select,
    "silu": lambda x: torch.nn.functional.silu(x),
    "square": lambda x: x * x,
    "tanh": lambda x: torch.tanh(x),
    "add": _two(torch.add),
    "sub": _two(torch.sub),
    "mul": _two(torch.mul),
    "real_div": _two(torch.div),
    "maximum": _two(torch.maximum),
    "minimum": _two(torch.minimum),
    "greater": _two(torch.gt),
    "greater_equal": _two(torch.ge),
    "less": _two(torch.lt),
    "logical_and": _two(torch.logical_and),
}
