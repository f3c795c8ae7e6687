"""4-bit blocks with zero points, against NumPy and against what they are to outdo."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from sottovoce_compiler.lowerings.onnx.graph import Graph, WeightFile
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear
from sottovoce_compiler.lowerings.onnx.searched import SearchedLinear, ZeroPointBlocks

from ...whisper_case import session


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def unpacked(blocks: ZeroPointBlocks) -> np.ndarray:
    """The matrix (N, K) float32 that the blocks stand for."""
    codes = np.stack([blocks.packed & 15, blocks.packed >> 4], axis=-1).reshape(*blocks.packed.shape[:2], -1)
    zeros = np.stack([blocks.zero_points & 15, blocks.zero_points >> 4], axis=-1).reshape(len(codes), -1)
    zeros = zeros[:, : codes.shape[1], None].astype(np.float32)
    return ((codes - zeros) * blocks.scales[..., None]).reshape(len(codes), -1)


def plain(blocks_of: BlockLinear, weight: np.ndarray) -> np.ndarray:
    blocks = blocks_of.quantize(weight)
    codes = np.stack([blocks.packed & 15, blocks.packed >> 4], axis=-1).reshape(*blocks.packed.shape[:2], -1)
    return ((codes - np.float32(8)) * blocks.scales[..., None]).reshape(weight.shape)


def lost(found: np.ndarray, weight: np.ndarray) -> float:
    return float(((found - weight) ** 2).mean())


@pytest.mark.parametrize("columns", [32, 96, 128])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("biased", [True, False])
def test_the_graph_multiplies_what_the_blocks_stand_for(columns: int, rows: int, biased: bool, tmp_path: Path) -> None:
    weight, x = random(70, columns) + np.float32(0.3), random(1, rows, columns, seed=1)
    bias = random(70, seed=2) if biased else None
    with WeightFile(tmp_path / "weights.bin") as weights:
        g = Graph("linear", weights)
        y = SearchedLinear().emit(g, g.input("x", TensorProto.FLOAT, [1, "rows", columns]), "w", weight, bias)
        g.output(y, "y", TensorProto.FLOAT, [1, "rows", 70])
        (tmp_path / "linear.onnx").write_bytes(g.serialize({}))
    found = session(tmp_path / "linear.onnx").run(["y"], {"x": x})[0]
    wanted = x @ unpacked(SearchedLinear().quantize(weight)).T + (0 if bias is None else bias)
    # What is left is the rounding of activations to 8 bits.
    assert np.sqrt(lost(found, wanted) / (wanted**2).mean()) < 0.015


@pytest.mark.parametrize("shift", [0.0, 0.7, 5.0])
def test_it_loses_less_than_symmetric_blocks(shift: float) -> None:
    weight = random(64, 256) + np.float32(shift)
    assert lost(unpacked(SearchedLinear().quantize(weight)), weight) < 0.9 * lost(
        plain(BlockLinear(4, 32), weight), weight
    )


def test_weights_that_are_on_a_grid_are_kept() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (8, 4, 32))
    codes[..., 0], codes[..., 1] = 0, 15
    scales = np.random.default_rng(1).uniform(0.5, 2, (8, 4, 1))
    weight = ((codes - 5) * scales).reshape(8, 128).astype(np.float32)
    np.testing.assert_allclose(unpacked(SearchedLinear().quantize(weight)), weight, rtol=1e-5, atol=1e-6)


def test_important_columns_are_kept_better() -> None:
    weight, importance = random(64, 128), np.full(128, 0.1, np.float32)
    importance[::8] = 10
    error = (unpacked(SearchedLinear(importance=importance).quantize(weight)) - weight) ** 2
    without = (unpacked(SearchedLinear().quantize(weight)) - weight) ** 2
    assert error[:, ::8].mean() < 0.8 * without[:, ::8].mean()
    assert (error * importance).mean() < (without * importance).mean()


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_block_of_one_value_is_that_value(value: float) -> None:
    weight = np.full((2, 32), value, np.float32)
    np.testing.assert_allclose(unpacked(SearchedLinear().quantize(weight)), weight, rtol=1e-6)


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="48 values do not divide"):
        SearchedLinear().quantize(random(2, 48))
    with pytest.raises(ValueError, match=r"\(3,\) for 32 columns"):
        SearchedLinear(importance=np.ones(3, np.float32)).quantize(random(2, 32))


def test_weights_that_were_8_bits_before_are_kept_where_the_scale_is_fitted() -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (4, 2, 32))
    codes[..., 0] = 127
    weight = (codes * np.random.default_rng(1).uniform(0.5, 2, (4, 2, 1))).reshape(4, 64).astype(np.float32)
    blocks = BlockLinear(8, 32, fitted=True).quantize(weight)
    found = ((blocks.packed.astype(np.float32) - 128) * blocks.scales[..., None]).reshape(4, 64)
    np.testing.assert_allclose(found, weight, rtol=1e-5, atol=1e-5)
