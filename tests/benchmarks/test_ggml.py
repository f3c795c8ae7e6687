"""The ggml writer: what a file holds, and that whisper.cpp takes it."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from peers.ggml import (
    Contents,
    Precision,
    Sizes,
    dequantize_q8_0,
    ggml_name,
    quantize_q8_0,
    read_ggml,
    write_ggml,
)

SIZES = Sizes(51864, 1500, 64, 1, 2, 448, 64, 1, 2, 80)
WORDS = [bytes([value]) for value in range(256)]
FILTERS = np.linspace(0, 0.02, 80 * 201, dtype=np.float32).reshape(80, 201)


class Memory:
    """A state dict."""

    def __init__(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        self.arrays = arrays

    def names(self) -> list[str]:
        return list(self.arrays)

    def load(self, name: str) -> NDArray[np.float32]:
        return self.arrays[name]


def random_whisper() -> Memory:
    """A complete two-layer Whisper of width 64 with small random weights."""
    random = np.random.default_rng(0)
    width, ffn = SIZES.audio_width, 4 * SIZES.audio_width
    shapes: dict[str, tuple[int, ...]] = {
        "model.encoder.conv1.weight": (width, SIZES.mels, 3),
        "model.encoder.conv1.bias": (width,),
        "model.encoder.conv2.weight": (width, width, 3),
        "model.encoder.conv2.bias": (width,),
        "model.encoder.embed_positions.weight": (SIZES.audio_positions, width),
        "model.decoder.embed_positions.weight": (SIZES.text_positions, width),
        "model.decoder.embed_tokens.weight": (SIZES.vocabulary, width),
        "proj_out.weight": (SIZES.vocabulary, width),
    }
    for side, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"])):
        norms = [f"model.{side}.layer_norm"]
        for layer in (f"model.{side}.layers.{index}" for index in range(2)):
            norms += [f"{layer}.final_layer_norm", *(f"{layer}.{kind}_layer_norm" for kind in attentions)]
            shapes |= {f"{layer}.fc1.weight": (ffn, width), f"{layer}.fc1.bias": (ffn,)}
            shapes |= {f"{layer}.fc2.weight": (width, ffn), f"{layer}.fc2.bias": (width,)}
            for kind in attentions:
                for part in "qkv":
                    shapes[f"{layer}.{kind}.{part}_proj.weight"] = (width, width)
                    if part != "k":
                        shapes[f"{layer}.{kind}.{part}_proj.bias"] = (width,)
                shapes[f"{layer}.{kind}.out_proj.weight"] = (width, width)
                shapes[f"{layer}.{kind}.out_proj.bias"] = (width,)
        shapes |= {f"{norm}.{field}": (width,) for norm in norms for field in ("weight", "bias")}
    return Memory({name: random.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()})


@pytest.fixture(scope="module")
def model() -> Memory:
    return random_whisper()


def written(folder: Path, model: Memory, precision: Precision) -> tuple[Path, Contents]:
    path = folder / f"{precision}.bin"
    write_ggml(path, SIZES, FILTERS, WORDS, model, precision)
    return path, read_ggml(path)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model.encoder.conv1.weight", "encoder.conv1.weight"),
        ("model.encoder.embed_positions.weight", "encoder.positional_embedding"),
        ("model.decoder.embed_tokens.weight", "decoder.token_embedding.weight"),
        ("model.encoder.layer_norm.bias", "encoder.ln_post.bias"),
        ("model.decoder.layer_norm.weight", "decoder.ln.weight"),
        ("model.encoder.layers.3.self_attn.k_proj.weight", "encoder.blocks.3.attn.key.weight"),
        ("model.decoder.layers.11.encoder_attn.k_proj.weight", "decoder.blocks.11.cross_attn.key.weight"),
        ("model.decoder.layers.0.encoder_attn_layer_norm.bias", "decoder.blocks.0.cross_attn_ln.bias"),
        ("model.decoder.layers.0.final_layer_norm.bias", "decoder.blocks.0.mlp_ln.bias"),
        ("model.decoder.layers.0.fc2.weight", "decoder.blocks.0.mlp.2.weight"),
        ("proj_out.weight", None),
    ],
)
def test_every_kind_of_tensor_gets_the_engines_name(theirs: str, ours: str | None) -> None:
    assert ggml_name(theirs) == ours


@pytest.mark.parametrize("name", ["model.encoder.layers.0.lora_A.weight", "lm_head.weight", "model.encoder"])
def test_a_tensor_that_whisper_does_not_have_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"lora_A|lm_head|encoder"):
        ggml_name(name)


def test_q8_0_holds_each_value_within_half_a_step_of_its_block() -> None:
    values = np.random.default_rng(1).normal(size=(6, 96)).astype(np.float32)
    restored = dequantize_q8_0(quantize_q8_0(values), values.shape)
    step = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
    error = np.abs(restored - values).reshape(-1, 32)
    # Beyond the half step of rounding, the float16 scale moves the 127th by up to 127 * 2^-11 of a step.
    assert (error <= step * (0.5 + 127 / 2048)).all()


def test_q8_0_block_is_a_float16_scale_and_then_32_int8() -> None:
    block = np.zeros(32, dtype=np.float32)
    block[0], block[1], block[2] = 127.0, -2.5, 0.5
    data = quantize_q8_0(block[None])
    assert struct.unpack("<e32b", data) == (1.0, 127, -3, 1, *([0] * 29))


def test_q8_0_of_zeros_is_zeros() -> None:
    assert quantize_q8_0(np.zeros((2, 32), dtype=np.float32)) == bytes(2 * 34)


def test_q8_0_refuses_rows_that_do_not_fill_blocks() -> None:
    with pytest.raises(ValueError, match="48"):
        quantize_q8_0(np.zeros((2, 48), dtype=np.float32))


@pytest.mark.parametrize(("precision", "tolerance"), [("f16", 2e-4), ("q8_0", 2e-3)])
def test_a_file_gives_back_what_was_written(
    tmp_path: Path, model: Memory, precision: Precision, tolerance: float
) -> None:
    # Weights reach 0.25: float16 steps there are 1.2e-4, int8 steps 0.25 / 127.
    _, contents = written(tmp_path, model, precision)
    assert contents.sizes == SIZES
    assert contents.vocabulary == tuple(WORDS)
    np.testing.assert_array_equal(contents.mel_filters, FILTERS)
    stored = {tensor.name: tensor for tensor in contents.tensors}
    assert len(stored) == len(model.arrays) - 1  # the tied head is left out
    for name, array in model.arrays.items():
        theirs = ggml_name(name)
        if theirs is not None:
            np.testing.assert_allclose(stored[theirs].values().reshape(array.shape), array, atol=tolerance)


def test_q8_0_takes_matrices_and_leaves_positions_biases_and_kernels(tmp_path: Path, model: Memory) -> None:
    _, contents = written(tmp_path, model, "q8_0")
    kept = {t.name: t.storage for t in contents.tensors if t.storage != "q8_0"}
    assert kept["encoder.positional_embedding"] == kept["decoder.positional_embedding"] == "f32"
    assert kept["encoder.conv1.bias"] == "f32"
    assert {name for name, storage in kept.items() if storage == "f16"} == {
        "encoder.conv1.weight",
        "encoder.conv2.weight",
    }
    assert all(len(t.shape) == 2 for t in contents.tensors if t.storage == "q8_0")
    assert contents.file_type == 2007


@pytest.mark.parametrize("cut", [3, 1000, 400_000, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, model: Memory, cut: int) -> None:
    path, _ = written(tmp_path, model, "q8_0")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError):
        read_ggml(path)


@pytest.mark.parametrize("precision", ["f16", "q8_0"])
def test_whisper_cpp_loads_and_runs_the_file(tmp_path: Path, model: Memory, precision: Precision) -> None:
    binding = pytest.importorskip("_pywhispercpp")
    path, _ = written(tmp_path, model, precision)
    options = binding.whisper_context_default_params()
    context = binding.whisper_init_from_file_with_params(str(path), options)
    assert binding.whisper_n_vocab(context) == SIZES.vocabulary
    assert binding.whisper_token_to_str(context, 65) in ("A", b"A")
    samples = np.zeros(16_000, dtype=np.float32)
    assert binding.whisper_pcm_to_mel(context, samples, samples.size, 1) == 0
    assert binding.whisper_encode(context, 0, 1) == 0
    assert binding.whisper_decode(context, binding.whisper_token_sot(context), 1, 0, 1) == 0
    binding.whisper_free(context)
