"""Decoding by Triton: in the interpreter, compiled for three kinds of GPU, and on a GPU where there is one."""

import pytest
import torch

from sottovoce_kernels.quantized import FORMATS, Kind, QuantizedWeight, quantize

pytest.importorskip("triton", reason="needs Triton: pip install triton")

kinds = pytest.mark.parametrize("kind", FORMATS)


@pytest.mark.interpreted
@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 32), (33, 96), (5, 64), (3, 77)], ids=str)
def test_interpreted_decoding_is_the_references_to_the_bit(
    kind: Kind, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    if kind == "q4_0" and shape[1] % 32:
        pytest.skip("q4_0 has whole blocks only")
    weight = quantize(torch.randn(shape, generator=torch.Generator().manual_seed(1)), kind, double=kind == "nf4")
    assert torch.equal(weight.dequantize(dtype, backend="triton"), weight.dequantize(dtype, backend="reference"))


@kinds
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_120"])
def test_decoding_compiles_without_faults(kind: Kind, target: str) -> None:
    from sottovoce_kernels.aot import TARGETS, recorded
    from sottovoce_kernels.quantized.kernel import dequantize

    weight = quantize(torch.randn(64, 576), kind)
    with recorded() as launches:
        dequantize(weight, torch.bfloat16)
    artifacts = [launch.compile(TARGETS[target]) for launch in launches]
    assert [artifact.faults() for artifact in artifacts] == [()]


@kinds
def test_decoding_on_a_gpu_is_the_references(kind: Kind, gpu: torch.device) -> None:
    weight = quantize(torch.randn(515, 1536, generator=torch.Generator().manual_seed(2)), kind)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        decoded = weight.to(gpu).dequantize(dtype, backend="triton")
        torch.testing.assert_close(decoded.cpu(), weight.dequantize(dtype, backend="reference"), rtol=2**-8, atol=0)


def test_a_weight_without_rows_decodes_to_none() -> None:
    from sottovoce_kernels.quantized.kernel import dequantize

    empty = QuantizedWeight("int8", (0, 64), torch.empty(0, 64, dtype=torch.int8), torch.empty(0))
    assert dequantize(empty, torch.float16).shape == (0, 64)
