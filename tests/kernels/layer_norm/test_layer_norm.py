"""layer_norm in four tiers: with and without a residual, each of the parameters trained or not, rows that lie apart."""

import pytest
import torch
from tiers import all_targets, check, check_compiles, check_gradients, interpreted_dtypes, meta, random, training_dtypes

from sottovoce_kernels.aot import Target
from sottovoce_kernels.layer_norm import layer_norm

EPS = 1e-5
NONE, BOTH = (False, False), (True, True)
shapes = pytest.mark.parametrize("shape", [(1, 3), (5, 48), (3, 2, 100), (33, 7), (0, 16)], ids=str)
residuals = pytest.mark.parametrize("residual", [False, True], ids=["alone", "with-residual"])
parameters = pytest.mark.parametrize("trained", [NONE, (True, False), (False, True), BOTH], ids=str)
widths = pytest.mark.parametrize("width", [64, 384, 1280, 8192])


def normed(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor | None = None, **options: str
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    return layer_norm(x, weight, bias, EPS, residual=residual, **options)  # type: ignore[call-overload, no-any-return]


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, residual: bool, trained: tuple[bool, bool] = BOTH
) -> list[torch.Tensor]:
    weight, bias = (random(shape[-1], dtype=dtype, seed=1 + at, wanted=one) for at, one in enumerate(trained))
    return [random(*shape, dtype=dtype), weight, bias, *([random(*shape, dtype=dtype, seed=3)] if residual else [])]


@residuals
@parameters
def test_the_backward_is_the_derivative_of_the_forward(residual: bool, trained: tuple[bool, bool]) -> None:
    check_gradients(normed, *inputs((3, 2, 5), torch.float64, residual, trained))


def test_the_reference_is_the_formula() -> None:
    x, weight, bias = inputs((7, 48), torch.float64, False)
    centered = x - x.mean(-1, keepdim=True)
    expected = centered / (centered.square().mean(-1, keepdim=True) + EPS).sqrt() * weight + bias
    torch.testing.assert_close(layer_norm(x, weight, bias, EPS), expected)


def test_with_a_residual_it_is_the_norm_of_the_sum_and_the_sum() -> None:
    x, weight, bias, residual = inputs((7, 48), torch.float32, True)
    y, total = layer_norm(x, weight, bias, EPS, residual=residual)
    assert torch.equal(total, x + residual)
    assert torch.equal(y, layer_norm(total, weight, bias, EPS))


@pytest.mark.parametrize("used", [0, 1])
def test_an_output_that_nothing_depends_on_gives_no_gradient(used: int) -> None:
    x, weight, bias, residual = inputs((3, 8), torch.float64, True)
    found = torch.autograd.grad(layer_norm(x, weight, bias, EPS, residual=residual)[used].sum(), (x, residual))
    total = x + residual
    expected = (layer_norm(total, weight, bias, EPS), total)[used].sum()
    for ours, theirs in zip(found, torch.autograd.grad(expected, (x, residual)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a bias of shape \(4,\) for rows of 5 values"):
        layer_norm(torch.zeros(2, 5), torch.zeros(5), torch.zeros(4), EPS)
    with pytest.raises(ValueError, match=r"a residual of shape \(5,\)"):
        layer_norm(torch.zeros(2, 5), torch.zeros(5), torch.zeros(5), EPS, residual=torch.zeros(5))


@shapes
@residuals
@training_dtypes
def test_the_reference_is_the_exact_result_rounded(shape: tuple[int, ...], residual: bool, dtype: torch.dtype) -> None:
    check(normed, inputs(shape, dtype, residual), backend="reference")


@pytest.mark.interpreted
@shapes
@residuals
@parameters
@interpreted_dtypes
def test_the_kernel_is_the_reference(
    shape: tuple[int, ...], residual: bool, trained: tuple[bool, bool], dtype: torch.dtype
) -> None:
    check(normed, inputs(shape, dtype, residual, trained))


@pytest.mark.interpreted
def test_the_kernel_reads_rows_that_lie_apart() -> None:
    given = [random(9, 64), random(37, seed=1), random(37, seed=2)]
    check(lambda x, *others, **options: normed(x[:, 3:40], *others, **options), given)


@all_targets
@pytest.mark.parametrize(("residual", "trained"), [(True, NONE), (False, BOTH)], ids=["frozen", "trained"])
@widths
def test_the_kernels_compile_without_spills(
    width: int, residual: bool, trained: tuple[bool, bool], target: Target
) -> None:
    from sottovoce_kernels.layer_norm import kernel

    x, weight = meta(64, width), meta(width)

    def launch() -> None:
        y, total, statistics = kernel.forward(x, weight, weight, EPS, x if residual else None)
        kernel.backward(y, total if residual else None, total, weight, weight, statistics, trained)

    for artifact in check_compiles(launch, target):
        assert ".v4.b32" in artifact.ptx, "no access of 16 bytes"


@pytest.mark.parametrize("shape", [(1, 3), (5, 48), (1000, 384), (3, 7, 1000), (257, 4096)], ids=str)
@residuals
@parameters
@training_dtypes
def test_on_a_gpu_the_kernel_is_the_reference(
    shape: tuple[int, ...], residual: bool, trained: tuple[bool, bool], dtype: torch.dtype, gpu: torch.device
) -> None:
    check(normed, inputs(shape, dtype, residual, trained), device=gpu)
