"""The four tiers in which an operation is tested, as functions that its tests call with its inputs.

1. `check_gradients`: the reference's hand-written backward against finite differences, in float64.
2. `check(..., backend="triton")` in a test marked `interpreted`: the kernel on CPU tensors, float32 and float16.
3. `check_compiles`: what a launcher launches compiles for every target without spills, within shared memory.
4. `check(..., backend="triton")` on the fixture `gpu`.

`check` holds a result to the reference in float64 on the very same values, so that one yardstick serves all of them,
the reference in a training dtype on a CPU included.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from sottovoce_kernels.aot import TARGETS, Artifact, Target, recorded

# Largest error in units of the dtype's epsilon, relative to the largest value compared with, or 1. Results are computed
# in float32 and rounded once, so half precision is off by about half a unit, and float32 by its sums' rounding.
ROUNDINGS = {torch.float32: 16.0, torch.float16: 2.0, torch.bfloat16: 2.0}

all_targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
interpreted_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
training_dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"]
)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, wanted: bool = True) -> torch.Tensor:
    """Normal values; `wanted`: with a gradient."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_(wanted)


def check_gradients(op: Callable[..., Any], *inputs: Any, **options: Any) -> None:
    """The operation's backward against finite differences; inputs in float64."""
    assert torch.autograd.gradcheck(partial(op, backend="reference", **options), inputs)


def check(
    op: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    device: torch.device | str = "cpu",
    backend: str = "triton",
    roundings: float | None = None,
    **options: Any,
) -> None:
    """Outputs and gradients of `op(*inputs)` on `device` against the reference in float64 on the CPU.

    `inputs` on the CPU; gradients that come in are random and the same for both. `roundings` in place of ROUNDINGS.
    """
    here = [_copy(value, lambda t: t.to(device)) for value in inputs]
    exact = [_copy(value, lambda t: t.double() if t.is_floating_point() else t) for value in inputs]
    got = _outputs_and_gradients(partial(op, backend=backend, **_on(options, device)), here)
    wanted = _outputs_and_gradients(partial(op, backend="reference", **_on(options, "cpu")), exact)
    assert len(got) == len(wanted)
    for ours, truth in zip(got, wanted, strict=True):
        assert ours.shape == truth.shape
        allowed = (ROUNDINGS[ours.dtype] if roundings is None else roundings) * torch.finfo(ours.dtype).eps
        largest = max(1.0, truth.abs().max().item() if truth.numel() else 0.0)
        torch.testing.assert_close(ours.cpu().double(), truth, rtol=0.0, atol=allowed * largest)


def check_compiles(launcher: Callable[[], object], target: Target) -> list[Artifact]:
    """Compiles all that `launcher` launches, on tensors of any device; what came out, without faults."""
    with recorded() as launches:
        launcher()
    assert launches, "nothing was launched"
    artifacts = [launch.compile(target) for launch in launches]
    assert [fault for artifact in artifacts for fault in artifact.faults()] == []
    return artifacts


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """A tensor without memory, for `check_compiles`."""
    return torch.empty(*shape, dtype=dtype, device="meta")


def _outputs_and_gradients(op: Callable[..., Any], inputs: Sequence[Any]) -> list[torch.Tensor]:
    result = op(*inputs)
    outputs = [result] if isinstance(result, torch.Tensor) else list(result)
    wanted = [value for value in inputs if isinstance(value, torch.Tensor) and value.requires_grad]
    incoming = [random(*out.shape, dtype=torch.float16, seed=at, wanted=False) for at, out in enumerate(outputs, 100)]
    given = [one.to(out.device, out.dtype) for one, out in zip(incoming, outputs, strict=True)]
    gradients = list(torch.autograd.grad(outputs, wanted, given)) if wanted else []
    return [out.detach() for out in outputs] + gradients


def _copy(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return change(value.detach().clone()).requires_grad_(value.requires_grad)


def _on(options: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in options.items()}
