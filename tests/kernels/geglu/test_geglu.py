"""geglu in four tiers."""

import pytest
import torch
from gated_tiers import compiles, derivative, inputs, layouts, refusals, same, shapes
from tiers import all_targets, interpreted_dtypes, training_dtypes

from sottovoce_kernels.aot import Target
from sottovoce_kernels.geglu import geglu


@layouts
def test_the_backward_is_the_derivative_of_the_forward(halves: bool) -> None:
    derivative(geglu, halves)


def test_the_reference_is_the_formula() -> None:
    gate, up = inputs((7, 48), torch.float64)
    torch.testing.assert_close(
        geglu(gate, up), 0.5 * gate * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3))) * up
    )


def test_shapes_and_dtypes_that_differ_are_refused() -> None:
    refusals(geglu)


@shapes
@training_dtypes
def test_the_reference_is_the_exact_result_rounded(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    same(geglu, shape, False, dtype, backend="reference")


@pytest.mark.interpreted
@shapes
@layouts
@interpreted_dtypes
def test_the_kernel_is_the_reference(shape: tuple[int, ...], halves: bool, dtype: torch.dtype) -> None:
    same(geglu, shape, halves, dtype)


@all_targets
@pytest.mark.parametrize(("halves", "dtype"), [(False, torch.float32), (True, torch.bfloat16)], ids=["fp32", "bf16"])
def test_the_kernels_compile_without_spills(halves: bool, dtype: torch.dtype, target: Target) -> None:
    from sottovoce_kernels.geglu import kernel

    compiles(kernel, halves, dtype, target)


@shapes
@layouts
@training_dtypes
def test_on_a_gpu_the_kernel_is_the_reference(
    shape: tuple[int, ...], halves: bool, dtype: torch.dtype, gpu: torch.device
) -> None:
    same(geglu, shape, halves, dtype, device=gpu)
