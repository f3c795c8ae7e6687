"""One test runs every kind of linear against NumPy; tolerances are what each precision can give."""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from sottovoce_compiler.lowerings.onnx.embedding import TiedEmbedding
from sottovoce_compiler.lowerings.onnx.graph import Graph, WeightFile
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear, Linear

from ...whisper_case import session

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
# Relative error of x W^T for random x and W, root mean square. float16 keeps 11 bits; int8 rounds weights and
# activations to about 1 part in 250 of a block's or row's largest value (3 sigma), 63 levels twice that in the weights;
# 4 bits round to 1 part in 30.
KINDS: dict[str, tuple[Linear, float]] = {
    "float32": (FloatLinear(), 1e-6),
    "float16": (FloatLinear(half=True), 4e-4),
    "channel-127": (DynamicInt8Linear(127), 0.02),
    "channel-63": (DynamicInt8Linear(63), 0.03),
    "block8-128": (BlockLinear(8, 128), 0.015),
    "block8-64": (BlockLinear(8, 64), 0.015),
    "block8-32": (BlockLinear(8, 32), 0.012),
    "block8-16": (BlockLinear(8, 16), 0.012),
    "block4-32": (BlockLinear(4, 32), 0.11),
    "block4-16": (BlockLinear(4, 16), 0.1),
}


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def run_linear(linear: Linear, folder: Path, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    with WeightFile(folder / "weights.bin") as weights:
        g = Graph("linear", weights)
        y = linear.emit(g, g.input("x", FLOAT, ["batch", "rows", weight.shape[1]]), "w", weight, bias)
        g.output(y, "y", FLOAT, ["batch", "rows", weight.shape[0]])
        (folder / "linear.onnx").write_bytes(g.serialize({}))
    return session(folder / "linear.onnx").run(["y"], {"x": x})[0]


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(((found - wanted) ** 2).mean() / (wanted**2).mean()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (3, 1), (2, 7)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_every_linear_is_x_times_w_transposed_plus_b(
    kind: str, batch: int, rows: int, with_bias: bool, tmp_path: Path
) -> None:
    linear, tolerance = KINDS[kind]
    weight, x = random(96, 128), random(batch, rows, 128, seed=1)
    bias = random(96, seed=2) if with_bias else None
    wanted = x.astype(np.float64) @ weight.T + (0 if bias is None else bias)
    assert relative(run_linear(linear, tmp_path, x, weight, bias), wanted) < tolerance


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("channel")])
def test_rows_of_a_batch_do_not_influence_each_other(kind: str, tmp_path: Path) -> None:
    """What keeps a clip's text the same whatever is beside it. One scale a tensor cannot promise that."""
    linear, _ = KINDS[kind]
    weight, x = random(64, 128), random(2, 1, 128, seed=1)
    alone = run_linear(linear, tmp_path, x[:1], weight, None)
    x[1] *= 100
    together = run_linear(linear, tmp_path, x, weight, None)[:1]
    if kind in (
        "block8-64",
        "block4-32",
    ):  # what a decoder gets: the same to the bit, or a rounding could grow to a word
        np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_row_is_the_dequantized_row_of_the_head(kind: str, tmp_path: Path) -> None:
    """Looked up rows equal what the head multiplies by, to the rounding of one product; and no byte is stored twice."""
    linear, tolerance = KINDS[kind]
    table = random(90, 128)
    with WeightFile(tmp_path / "weights.bin") as weights:
        g = Graph("embedding", weights)
        embedding = TiedEmbedding(linear, table)
        rows = embedding.lookup(g, g.input("tokens", INT64, ["batch", "length"]))
        logits = embedding.head(g, g.input("x", FLOAT, ["batch", "length", 128]))
        g.output(rows, "rows", FLOAT, ["batch", "length", 128])
        g.output(logits, "logits", FLOAT, ["batch", "length", 90])
        (tmp_path / "embedding.onnx").write_bytes(g.serialize({}))
    ids = np.array([[0, 89, 5], [7, 7, 1]])
    x = random(2, 3, 128, seed=1)
    rows, logits = session(tmp_path / "embedding.onnx").run(["rows", "logits"], {"tokens": ids, "x": x})
    assert relative(rows, table[ids]) < tolerance
    np.testing.assert_allclose(rows, dequantized(linear, table)[ids], rtol=1e-6, atol=1e-7)
    assert relative(logits, x @ dequantized(linear, table).T) < (1e-6 if isinstance(linear, FloatLinear) else 0.012)
    bits = {"float32": 32, "float16": 16}.get(kind, 4 if kind.startswith("block4") else 8)
    scales = 0 if isinstance(linear, FloatLinear) else 4 * (90 if "channel" in kind else 90 * 128 // linear.block)
    assert (tmp_path / "weights.bin").stat().st_size <= 90 * 128 * bits // 8 + scales + 2 * 64


def dequantized(linear: Linear, table: np.ndarray) -> np.ndarray:
    """The table that a linear's stored bytes stand for, written apart from the code under test."""
    if isinstance(linear, FloatLinear):
        return table.astype(np.float16).astype(np.float32) if linear.half else table
    if isinstance(linear, DynamicInt8Linear):
        scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(linear.levels)
        return np.rint(table / scale).astype(np.float32) * scale
    assert isinstance(linear, BlockLinear)
    blocks = linear.quantize(table)
    codes = blocks.packed.astype(np.int32)
    if linear.bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)
    centred = (codes - (1 << (linear.bits - 1))).astype(np.float32)
    return (centred * blocks.scales[..., None]).reshape(table.shape)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("block", [16, 32, 128])
def test_block_quantization_errs_by_half_a_step_and_by_one_at_the_short_end(bits: int, block: int) -> None:
    weight = random(20, 256)
    weight[0] = 0
    weight[1, :block] = 1e-20
    weight[2, :block] = -3.0
    linear = BlockLinear(bits, block)
    error = np.abs(dequantized(linear, weight) - weight).reshape(20, -1, block)
    largest = np.abs(weight).reshape(20, -1, block).max(axis=-1)
    step = largest / (1 << (bits - 1))
    allowed = step if bits == 8 else 1.6 * step  # at 4 bits the scale may shrink by a fifth, where that errs less
    assert (error <= allowed[..., None] + 1e-7).all()
    assert np.median(error / np.maximum(step[..., None], 1e-12)) <= 0.5
    assert linear.quantize(weight).packed.shape == (20, 256 // block, block * bits // 8)
    assert linear.quantize(weight).scales.shape == (20, 256 // block)


def test_the_searched_scales_of_4_bits_err_less_than_the_plain_ones() -> None:
    weight = random(40, 256)
    blocks = weight.reshape(40, 8, 32)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    plain = np.clip(np.rint(blocks / (-extreme / 8)), -8, 7) * (-extreme / 8)
    searched = dequantized(BlockLinear(4, 32), weight).reshape(blocks.shape)
    assert ((searched - blocks) ** 2).mean() < 0.95 * ((plain - blocks) ** 2).mean()


def test_rows_that_do_not_divide_into_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("rows of 48 values do not divide into blocks of 32")):
        BlockLinear(4, 32).quantize(random(2, 48))


def test_63_levels_cannot_saturate_16_bit_sums_of_two_products_and_127_can() -> None:
    """vpmaddubsw adds u8 * s8 + u8 * s8 and saturates at 2^15 - 1."""
    most = 255  # of an activation
    assert 2 * most * 63 <= 2**15 - 1 < 2 * most * 127


@pytest.mark.parametrize("levels", [63, 127])
def test_no_weight_passes_its_levels(levels: int, tmp_path: Path) -> None:
    weight = random(32, 64)
    weight[3] = 0
    with WeightFile(tmp_path / "weights.bin") as weights:
        g = Graph("linear", weights)
        DynamicInt8Linear(levels).emit(g, g.input("x", FLOAT, [1, 64]), "w", weight, None)
    stored = np.fromfile(tmp_path / "weights.bin", np.int8, 64 * 32).reshape(64, 32)
    assert np.abs(stored.astype(int)).max() == levels
    assert (np.abs(stored.astype(int)).max(axis=0) == np.where(np.arange(32) == 3, 0, levels)).all()


def test_63_levels_are_exact_for_the_worst_activations(tmp_path: Path) -> None:
    """All products at their largest: wherever this runs, nothing is cut off."""
    weight = np.ones((8, 64), np.float32)
    x = np.ones((1, 4, 64), np.float32)
    x[..., 0] = 0
    found = run_linear(DynamicInt8Linear(63), tmp_path, x, weight, None)
    np.testing.assert_allclose(found, 63, rtol=1e-3)
