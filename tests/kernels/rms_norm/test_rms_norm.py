"""rms_norm in four tiers: with and without a residual, Gemma's offset, a trained weight, rows that lie apart."""

import pytest
import torch
from tiers import all_targets, check, check_compiles, check_gradients, interpreted_dtypes, meta, random, training_dtypes

from sottovoce_kernels.aot import Target
from sottovoce_kernels.backend import BackendError
from sottovoce_kernels.rms_norm import rms_norm

EPS = 1e-5
shapes = pytest.mark.parametrize("shape", [(1, 1), (5, 48), (3, 2, 100), (33, 7), (0, 16)], ids=str)
residuals = pytest.mark.parametrize("residual", [False, True], ids=["alone", "with-residual"])
weights = pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
widths = pytest.mark.parametrize("width", [64, 576, 1536, 8192])


def normed(
    x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor | None = None, **options: float
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    return rms_norm(x, weight, EPS, residual=residual, **options)  # type: ignore[call-overload, no-any-return]


def inputs(shape: tuple[int, ...], dtype: torch.dtype, residual: bool, trained: bool = True) -> list[torch.Tensor]:
    weight = random(shape[-1], dtype=dtype, seed=1, wanted=trained)
    return [random(*shape, dtype=dtype), weight, *([random(*shape, dtype=dtype, seed=2)] if residual else [])]


@residuals
@weights
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_backward_is_the_derivative_of_the_forward(residual: bool, trained: bool, offset: float) -> None:
    check_gradients(normed, *inputs((3, 2, 5), torch.float64, residual, trained), offset=offset)


def test_the_reference_is_the_formula() -> None:
    x, weight = random(7, 48, dtype=torch.float64), random(48, dtype=torch.float64, seed=1)
    expected = x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * (weight + 1.0)
    torch.testing.assert_close(rms_norm(x, weight, EPS, offset=1.0), expected)


def test_with_a_residual_it_is_the_norm_of_the_sum_and_the_sum() -> None:
    x, weight, residual = inputs((7, 48), torch.float32, True)
    y, total = rms_norm(x, weight, EPS, residual=residual)
    assert torch.equal(total, x + residual)
    assert torch.equal(y, rms_norm(total, weight, EPS))


@pytest.mark.parametrize("used", [0, 1])
def test_an_output_that_nothing_depends_on_gives_no_gradient(used: int) -> None:
    x, weight, residual = inputs((3, 8), torch.float64, True)
    found = torch.autograd.grad(rms_norm(x, weight, EPS, residual=residual)[used].sum(), (x, residual))
    total = x + residual
    expected = (rms_norm(total, weight, EPS), total)[used].sum()
    for ours, theirs in zip(found, torch.autograd.grad(expected, (x, residual)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_rows_of_many_chunks_are_the_rows_of_one() -> None:
    x, weight = random(1100, 576), random(576, seed=1)
    whole = rms_norm(x, weight, EPS)
    parts = torch.cat([rms_norm(part, weight, EPS) for part in x.split(100)])
    torch.testing.assert_close(whole, parts)
    for one, other in zip(*(torch.autograd.grad(y.sum(), (x, weight)) for y in (whole, parts)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)  # the weight's is a sum of 1100 rows


@pytest.mark.interpreted
def test_rows_too_wide_for_a_tile_are_refused_with_the_way_out() -> None:
    with pytest.raises(BackendError, match="rows of 8193 values; the kernels take up to 8192, use backend 'reference'"):
        rms_norm(torch.zeros(1, 8193), torch.zeros(8193), EPS, backend="triton")


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a weight of shape \(4,\) for rows of 5 values"):
        rms_norm(torch.zeros(2, 5), torch.zeros(4), EPS)
    with pytest.raises(ValueError, match=r"a residual of shape \(5,\)"):
        rms_norm(torch.zeros(2, 5), torch.zeros(5), EPS, residual=torch.zeros(5))


@shapes
@residuals
@training_dtypes
def test_the_reference_is_the_exact_result_rounded(shape: tuple[int, ...], residual: bool, dtype: torch.dtype) -> None:
    check(normed, inputs(shape, dtype, residual), backend="reference")


@pytest.mark.interpreted
@shapes
@residuals
@weights
@interpreted_dtypes
def test_the_kernel_is_the_reference(shape: tuple[int, ...], residual: bool, trained: bool, dtype: torch.dtype) -> None:
    check(normed, inputs(shape, dtype, residual, trained), offset=1.0)


@pytest.mark.interpreted
def test_the_kernel_reads_rows_that_lie_apart() -> None:
    check(lambda x, *others, **options: normed(x[:, 3:40], *others, **options), [random(9, 64), random(37)])


@all_targets
@pytest.mark.parametrize(("residual", "trained"), [(True, False), (False, True)], ids=["frozen", "trained"])
@widths
def test_the_kernels_compile_without_spills(width: int, residual: bool, trained: bool, target: Target) -> None:
    from sottovoce_kernels.rms_norm import kernel

    x, weight = meta(64, width), meta(width)

    def launch() -> None:
        y, total, scale = kernel.forward(x, weight, EPS, 0.0, x if residual else None)
        kernel.backward(y, total if residual else None, total, weight, scale, 0.0, trained)

    for artifact in check_compiles(launch, target):
        assert ".v4.b32" in artifact.ptx, "no access of 16 bytes"


@pytest.mark.parametrize("shape", [(1, 1), (5, 48), (1000, 576), (3, 7, 1000), (257, 4096)], ids=str)
@residuals
@weights
@training_dtypes
def test_on_a_gpu_the_kernel_is_the_reference(
    shape: tuple[int, ...], residual: bool, trained: bool, dtype: torch.dtype, gpu: torch.device
) -> None:
    check(normed, inputs(shape, dtype, residual, trained), device=gpu, offset=1.0)
