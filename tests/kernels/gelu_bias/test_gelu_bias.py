"""gelu_bias in four tiers: without a bias, with a frozen and with a trained one, rows that lie apart."""

import pytest
import torch
from tiers import all_targets, check, check_compiles, check_gradients, interpreted_dtypes, meta, random, training_dtypes

from sottovoce_kernels.aot import Target
from sottovoce_kernels.gelu_bias import gelu_bias

shapes = pytest.mark.parametrize("shape", [(1, 1), (5, 48), (3, 2, 300), (33, 7), (0, 16)], ids=str)
biases = pytest.mark.parametrize("bias", ["none", "frozen", "trained"])


def inputs(shape: tuple[int, ...], dtype: torch.dtype, bias: str) -> list[torch.Tensor]:
    trained = random(shape[-1], dtype=dtype, seed=1, wanted=bias == "trained")
    return [random(*shape, dtype=dtype), *([] if bias == "none" else [trained])]


@biases
def test_the_backward_is_the_derivative_of_the_forward(bias: str) -> None:
    check_gradients(gelu_bias, *inputs((3, 2, 5), torch.float64, bias))


def test_the_reference_is_the_formula() -> None:
    x, bias = inputs((7, 48), torch.float64, "trained")
    expected = (x + bias) * 0.5 * (1 + torch.erf((x + bias) / 2**0.5))
    torch.testing.assert_close(gelu_bias(x, bias), expected)


def test_a_bias_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a bias of shape \(4,\) in torch.float32 for rows of 5 values"):
        gelu_bias(torch.zeros(2, 5), torch.zeros(4))
    with pytest.raises(ValueError, match=r"a bias of shape \(5,\) in torch.float16"):
        gelu_bias(torch.zeros(2, 5), torch.zeros(5, dtype=torch.float16))


@shapes
@biases
@training_dtypes
def test_the_reference_is_the_exact_result_rounded(shape: tuple[int, ...], bias: str, dtype: torch.dtype) -> None:
    check(gelu_bias, inputs(shape, dtype, bias), backend="reference")


@pytest.mark.interpreted
@shapes
@biases
@interpreted_dtypes
def test_the_kernel_is_the_reference(shape: tuple[int, ...], bias: str, dtype: torch.dtype) -> None:
    check(gelu_bias, inputs(shape, dtype, bias))


@pytest.mark.interpreted
def test_the_kernel_reads_rows_that_lie_apart() -> None:
    check(lambda x, bias, **options: gelu_bias(x[:, 3:40], bias, **options), [random(9, 64), random(37)])


@all_targets
@pytest.mark.parametrize(
    ("bias", "dtype"), [("none", torch.float32), ("trained", torch.bfloat16)], ids=["fp32", "bf16"]
)
def test_the_kernels_compile_without_spills(bias: str, dtype: torch.dtype, target: Target) -> None:
    from sottovoce_kernels.gelu_bias import kernel

    x, shift = meta(64, 1536, dtype=dtype), None if bias == "none" else meta(1536, dtype=dtype)

    def launch() -> None:
        kernel.backward(kernel.forward(x, shift), x, shift, bias == "trained")

    for artifact in check_compiles(launch, target):
        assert ".v4.b32" in artifact.ptx, "no access of 16 bytes"


@pytest.mark.parametrize("shape", [(1, 1), (5, 48), (1500, 1536), (3, 7, 1000)], ids=str)
@biases
@training_dtypes
def test_on_a_gpu_the_kernel_is_the_reference(
    shape: tuple[int, ...], bias: str, dtype: torch.dtype, gpu: torch.device
) -> None:
    check(gelu_bias, inputs(shape, dtype, bias), device=gpu)
