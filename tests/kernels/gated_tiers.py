"""The four tiers of swiglu and geglu: one set of shapes, layouts and targets for operations of one signature."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from tiers import check, check_compiles, check_gradients, meta, random

from sottovoce_kernels.aot import Target

shapes = pytest.mark.parametrize("shape", [(1, 1), (5, 48), (3, 2, 33), (2, 1100), (0, 16)], ids=str)
layouts = pytest.mark.parametrize("halves", [False, True], ids=["apart", "halves-of-one"])

Op = Callable[..., torch.Tensor]


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    return [random(*shape, dtype=dtype, seed=1), random(*shape, dtype=dtype, seed=2)]


def on_halves(op: Op) -> Op:
    """The operation on the two halves of one projection, whose rows lie apart."""
    return lambda gate, up, **options: op(*torch.cat([gate, up], -1).chunk(2, -1), **options)


def derivative(op: Op, halves: bool) -> None:
    check_gradients(on_halves(op) if halves else op, *inputs((3, 2, 5), torch.float64))


def same(op: Op, shape: tuple[int, ...], halves: bool, dtype: torch.dtype, **options: Any) -> None:
    check(on_halves(op) if halves else op, inputs(shape, dtype), **options)


def compiles(kernel: ModuleType, halves: bool, dtype: torch.dtype, target: Target) -> None:
    gate, up = meta(64, 3072, dtype=dtype).chunk(2, -1) if halves else (meta(64, 1536, dtype=dtype) for _ in range(2))

    def launch() -> None:
        kernel.backward(kernel.forward(gate, up), gate, up)

    for artifact in check_compiles(launch, target):
        assert ".v4.b32" in artifact.ptx, "no access of 16 bytes"


def refusals(op: Op) -> None:
    with pytest.raises(ValueError, match=r"gate of shape \(2, 3\).* and up of shape \(2, 4\).* have to be alike"):
        op(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="have to be alike"):
        op(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.float16))
