"""Quantized weights in plain torch: against GGUF's own writer, against published numbers, and against their bounds."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from sottovoce_kernels.quantized import FORMATS, Kind, QuantizedWeight, quantize
from sottovoce_kernels.quantized.formats import decode_scales, encode_scales, nf4_codes

kinds = pytest.mark.parametrize("kind", FORMATS)

# Table of 4-bit NormalFloat, Dettmers et al. 2023 (arXiv 2305.14314), appendix E; bitsandbytes has the same.
PUBLISHED_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

# Largest error over a row's or block's largest magnitude: half a step of int8 and half of the widest gap in nf4; q4_0's
# largest positive value may lie a step beyond its 7; fp8 has four bits of significand, so at most 1 in 16 goes.
BOUNDS = {"int8": 0.5 / 127, "fp8": 1 / 16, "nf4": (1 - 0.6961928) / 2, "q4_0": 1 / 8}


def weight(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    magnitudes = torch.logspace(-3, 1, rows)[:, None]
    return torch.randn(rows, columns, generator=generator) * magnitudes


def gguf_bytes(quantized: QuantizedWeight) -> np.ndarray:
    """The blocks of a q4_0 weight as they lie in a file: two bytes of scale, sixteen of values."""
    rows = quantized.shape[0]
    scales = quantized.scales.view(torch.uint8).view(rows, -1, 2)
    return torch.cat([scales, quantized.data.view(rows, -1, 16)], 2).view(rows, -1).numpy()


def test_codes_of_nf4_are_the_published_ones() -> None:
    assert nf4_codes() == pytest.approx(PUBLISHED_NF4, abs=1e-6)
    assert nf4_codes()[7] == 0.0


def test_q4_0_has_the_bytes_that_gguf_writes() -> None:
    values = weight(40, 96)
    values[3, :32] = 0.0
    values[4, :32] = torch.tensor([-2.0, 2.0] * 16)
    expected = gguf.quants.quantize(values.numpy(), GGMLQuantizationType.Q4_0)
    assert np.array_equal(gguf_bytes(quantize(values, "q4_0")), expected)


def test_q4_0_decodes_to_the_bits_that_gguf_reads() -> None:
    quantized = quantize(weight(40, 96), "q4_0")
    expected = gguf.quants.dequantize(gguf_bytes(quantized), GGMLQuantizationType.Q4_0)
    assert np.array_equal(quantized.dequantize(torch.float32).numpy(), expected)


@kinds
@pytest.mark.parametrize("columns", [64, 192, 2048])
def test_errors_stay_below_what_a_kind_can_tell_apart(kind: Kind, columns: int) -> None:
    values = weight(37, columns)
    wrong = (quantize(values, kind).dequantize(torch.float32) - values).abs()
    block = FORMATS[kind].block or columns
    largest = values.abs().view(37, -1, block).amax(2)
    assert (wrong.view(37, -1, block).amax(2) <= largest * BOUNDS[kind] * 1.01).all()
    assert wrong.max() > 0


@pytest.mark.parametrize("kind", ["int8", "fp8", "nf4"])
def test_rows_of_any_width_are_taken(kind: Kind) -> None:
    values = weight(5, 77)
    decoded = quantize(values, kind).dequantize(torch.float32)
    assert decoded.shape == (5, 77)
    assert torch.nn.functional.cosine_similarity(decoded, values).min() > 0.98


def test_fp8_decodes_to_what_torch_says_the_bytes_mean() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    finite = every[torch.isfinite(every.to(torch.float32))]
    whole = QuantizedWeight("fp8", (2, 127), finite.view(2, 127), torch.tensor([1.0, 3.0]))
    expected = finite.to(torch.float32).view(2, 127) * torch.tensor([[1.0], [3.0]])
    assert torch.equal(whole.dequantize(torch.float32), expected)


@kinds
def test_a_weight_of_zeros_stays_one(kind: Kind) -> None:
    assert not quantize(torch.zeros(3, 64), kind).dequantize(torch.bfloat16).any()


@kinds
def test_decoding_in_parts_gives_what_decoding_at_once_gives(kind: Kind) -> None:
    values = weight(300, 512)
    quantized = quantize(values, kind)
    decoded = FORMATS[kind].decode(quantized.data, quantized.float_scales())
    assert torch.equal(quantized.dequantize(torch.float16), decoded.to(torch.float16))


def test_scales_in_eight_bits_cost_little_and_save_the_room_that_the_paper_says() -> None:
    values = weight(256, 1024)
    plain, double = quantize(values, "nf4"), quantize(values, "nf4", double=True)
    assert plain.nbytes * 8 / values.numel() == 4.5
    assert double.nbytes * 8 / values.numel() == pytest.approx(4 + 8 / 64 + 64 / (64 * 256))
    wrong = [(one.dequantize(torch.float32) - values).norm() / values.norm() for one in (plain, double)]
    assert wrong[0] < wrong[1] < 1.02 * wrong[0]


def test_scales_come_back_within_half_a_step_of_their_group() -> None:
    scales = torch.rand(7, 51)
    steps, outer = encode_scales(scales)
    assert steps.dtype == torch.int8
    assert (decode_scales(steps, outer) - scales).abs().max() <= outer[0].max() / 2 * 1.01


@kinds
def test_a_weight_can_be_taken_apart_and_put_together(kind: Kind) -> None:
    quantized = quantize(weight(6, 128), kind, double=kind == "nf4")
    again = QuantizedWeight.from_tensors(kind, (6, 128), {k: v.clone() for k, v in quantized.tensors().items()})
    assert torch.equal(again.dequantize(torch.float32), quantized.dequantize(torch.float32))
    assert again.nbytes == quantized.nbytes
    moved = quantized.to("meta")
    assert moved.device.type == "meta" and set(moved.tensors()) == set(quantized.tensors())


def test_what_cannot_be_quantized_is_said() -> None:
    with pytest.raises(ValueError, match="no kind of quantized weight is called 'int3'; there are int8"):
        quantize(torch.zeros(2, 64), "int3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows of 40 values do not divide into blocks of 32"):
        quantize(torch.zeros(2, 40), "q4_0")
    with pytest.raises(ValueError, match="a matrix of floats is quantized"):
        quantize(torch.zeros(2, 2, 64), "int8")
    with pytest.raises(ValueError, match="only those of nf4"):
        quantize(torch.zeros(2, 64), "int8", double=True)
    with pytest.raises(ValueError, match=r"data \(2, 64\) of a int8 weight"):
        QuantizedWeight.from_tensors("int8", (3, 64), quantize(torch.zeros(2, 64), "int8").tensors())


@kinds
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(kind: Kind, bad: float) -> None:
    values = weight(4, 64)
    values[2, 5] = bad
    with pytest.raises(ValueError, match="infinite, not a number"):
        quantize(values, kind)
