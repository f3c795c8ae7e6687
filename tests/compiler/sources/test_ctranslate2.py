import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sottovoce_compiler.sources import SourceError, resolve
from sottovoce_compiler.sources.ctranslate2 import read_model

from .tiny_whisper import (
    HEADS,
    LAYERS,
    SPECIAL,
    TIMESTAMPS,
    VOCAB_SIZE,
    Weights,
    ctranslate2_variables,
    model_bin,
)

# What storing alone may change, relative to a tensor's largest value: half a unit in the last place of a
# float format (a whole one of bfloat16, which the writer of these tests cuts off), half a step of int8, and a
# step of int16, whose scale is that of a fused tensor with up to twice the value.
TOLERANCES = {
    "float32": 0.0,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-7,
    "int8": 0.5 / 127,
    "int8_float16": 0.5 / 127 + 2.0**-11,
    "int8_bfloat16": 0.5 / 127 + 2.0**-7,
    "int16": 1 / 1024,
}

WriteCt2 = Callable[..., Path]


@pytest.mark.parametrize("kind", TOLERANCES)
def test_every_tensor_comes_back_under_its_hugging_face_name(
    kind: str, tmp_path: Path, write_ct2: WriteCt2, tiny_weights: Weights
) -> None:
    tensors = resolve(str(write_ct2(tmp_path / "ct2", kind))).tensors
    assert tensors.names() == sorted(tiny_weights)
    for name, expected in tiny_weights.items():
        found = tensors.load(name)
        assert found.shape == tensors.shape(name) == expected.shape
        limit = TOLERANCES[kind] * float(np.abs(expected).max())
        np.testing.assert_allclose(found.astype(np.float32), expected, rtol=0, atol=limit * 1.001, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("float32", "float32"), ("float16", "float16"), ("bfloat16", "float32"), ("int8", "float32")],
)
def test_tensors_come_as_stored_unless_numpy_cannot_hold_them(
    kind: str, dtype: str, tmp_path: Path, write_ct2: WriteCt2
) -> None:
    tensors = resolve(str(write_ct2(tmp_path / "ct2", kind))).tensors
    assert tensors.load("model.encoder.layers.1.self_attn.k_proj.weight").dtype == dtype


def test_the_configuration_is_that_of_the_model_it_was_made_from(
    tmp_path: Path, write_ct2: WriteCt2, tiny_config: dict[str, Any]
) -> None:
    config = resolve(str(write_ct2(tmp_path / "ct2"))).config
    assert {key: config[key] for key in tiny_config} == tiny_config
    assert config["tie_word_embeddings"] is True


def test_transformers_takes_the_config_and_every_weight(tmp_path: Path, write_ct2: WriteCt2) -> None:
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    checkpoint = resolve(str(write_ct2(tmp_path / "ct2")))
    model = WhisperForConditionalGeneration(WhisperConfig(**checkpoint.config))
    state = {name: torch.from_numpy(checkpoint.tensors.load(name)) for name in checkpoint.tensors.names()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["proj_out.weight"], [])


def test_generation_settings_come_from_the_vocabulary_and_the_settings_file(
    tmp_path: Path, write_ct2: WriteCt2
) -> None:
    settings = resolve(str(write_ct2(tmp_path / "ct2"))).generation_config
    assert settings["is_multilingual"] is True
    # Not the file's lang_ids, which are one off here as they are in published English-only conversions.
    assert settings["lang_to_id"] == {"<|en|>": 258, "<|zh|>": 259}
    assert settings["task_to_id"] == {"transcribe": 261, "translate": 260}
    assert settings["no_timestamps_token_id"] == 265
    assert settings["alignment_heads"] == [[0, 1], [2, 3]]
    assert settings["suppress_tokens"] == [1, 2, 258]
    assert settings["begin_suppress_tokens"] == [32, 256]


def test_settings_that_point_outside_the_model_are_dropped(tmp_path: Path, write_ct2: WriteCt2) -> None:
    folder = write_ct2(tmp_path / "ct2")
    heads, ids = [[0, 1], [9, 0], [0, 99], "x", [1]], f'[1, -5, {VOCAB_SIZE}, "2", true, null]'
    (folder / "config.json").write_text(
        f'{{"alignment_heads": {str(heads).replace(chr(39), chr(34))}, "suppress_ids": {ids}}}'
    )
    settings = resolve(str(folder)).generation_config
    assert settings["alignment_heads"] == [[0, 1]]
    assert settings["suppress_tokens"] == [1]
    assert "begin_suppress_tokens" not in settings


def test_a_head_of_its_own_is_kept_and_says_so(tmp_path: Path, write_ct2: WriteCt2, tiny_weights: Weights) -> None:
    folder = write_ct2(tmp_path / "ct2")
    head = np.ones_like(tiny_weights["model.decoder.embed_tokens.weight"])
    variables = ctranslate2_variables(tiny_weights, "float32")
    (folder / "model.bin").write_bytes(
        model_bin(variables | {"decoder/projection/weight": ("float32", head)}, aliases={})
    )
    checkpoint = resolve(str(folder))
    assert checkpoint.config["tie_word_embeddings"] is False
    assert (checkpoint.tensors.load("proj_out.weight") == 1).all()


def test_an_aliased_quantized_variable_keeps_its_scale(tmp_path: Path) -> None:
    variables: dict[str, tuple[str, np.ndarray]] = {
        "a/weight": ("int8", np.full((2, 3), 100, np.int8)),
        "a/weight_scale": ("float32", np.array([10, 1000], np.float32)),
    }
    (tmp_path / "model.bin").write_bytes(model_bin(variables, {"b/weight": "a/weight"}))
    assert read_model(tmp_path / "model.bin").load("b/weight", 1, 2).tolist() == [[np.float32(0.1)] * 3]


def test_opening_reads_the_table_and_not_the_weights(tmp_path: Path) -> None:
    big = np.zeros((1024, 4096), np.float32)  # 16 MiB
    path = tmp_path / "model.bin"
    path.write_bytes(model_bin({"w": ("float32", big)}, {}))
    del big
    tracemalloc.start()
    model = read_model(path)
    rows = model.load("w", 10, 12)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.shape == (2, 4096)
    assert peak < 2**20


def test_an_unknown_tensor_is_named(tmp_path: Path, write_ct2: WriteCt2) -> None:
    tensors = resolve(str(write_ct2(tmp_path / "ct2"))).tensors
    with pytest.raises(SourceError, match="lm_head"):
        tensors.load("lm_head.weight")


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.02, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused_and_named(keep: float, tmp_path: Path, write_ct2: WriteCt2) -> None:
    folder = write_ct2(tmp_path / "ct2")
    content = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(SourceError, match=r"model\.bin is truncated.*fetch it again"):
        resolve(str(folder))


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin({}, {}) + b"tail")
    with pytest.raises(SourceError, match="4 bytes after its end"):
        read_model(tmp_path / "model.bin")


def _one(name: bytes, rest: bytes) -> bytes:
    head = struct.pack("<I", 6) + struct.pack("<H", 2) + b"W\0" + struct.pack("<II", 3, 1)
    return head + struct.pack("<H", len(name)) + name + rest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<I", 3), "format version 3"),
        (struct.pack("<I", 7), "format version 7"),
        (_one(b"w\0", struct.pack("<BIIBI", 2, 2**32 - 1, 2**32 - 1, 0, 16)), "has 16 bytes, expected"),
        (_one(b"w\0", struct.pack("<BIBI", 1, 2**30, 0, 2**32 - 2**30)), "expected 4294967296"),
        (_one(b"w\0", struct.pack("<BIBI", 1, 2**28, 0, 2**30)), "truncated"),
        (_one(b"w\0", struct.pack("<B", 200)), "200 dimensions"),
        (_one(b"w\0", struct.pack("<BBI", 0, 6, 1)), "type id 6"),
        (_one(b"\xff\xfe\0", b""), "expected ASCII"),
        (_one(b"w\0", b"").replace(b"w\0", b"")[:-2] + struct.pack("<H", 60000), "claims 60000 bytes"),
        (
            struct.pack("<I", 6) + struct.pack("<H", 2) + b"W\0" + struct.pack("<II", 3, 2**32 - 1),
            "truncated",
        ),
    ],
)
def test_sizes_are_checked_against_the_file_before_anything_is_allocated(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(SourceError, match=message):
        read_model(tmp_path / "model.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_any_flipped_byte_of_the_table_gives_a_model_or_one_of_our_errors(
    tmp_path: Path, tiny_weights: Weights
) -> None:
    content = model_bin({"a/weight": ("int8", np.ones((2, 3), np.int8))}, {"b": "a/weight"})
    for position in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= flip
            (tmp_path / "model.bin").write_bytes(damaged)
            try:
                read_model(tmp_path / "model.bin")
            except SourceError as error:
                assert "model.bin" in str(error) and "\n" not in str(error)


def test_an_alias_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin({}, {"a": "missing"}))
    with pytest.raises(SourceError, match="the alias a names missing"):
        read_model(tmp_path / "model.bin")


@pytest.mark.parametrize("scale", [None, 0.0, float("nan"), -1.0])
def test_a_quantized_weight_needs_a_usable_scale(scale: float | None, tmp_path: Path) -> None:
    variables = {"w": ("int8", np.ones((1, 3), np.int8))}
    if scale is not None:
        variables["w_scale"] = ("float32", np.array([scale], np.float32))
    (tmp_path / "model.bin").write_bytes(model_bin(variables, {}))
    with pytest.raises(SourceError, match="scale"):
        read_model(tmp_path / "model.bin").load("w")


def test_a_model_that_is_not_whisper_is_refused_by_its_specification(tmp_path: Path, write_ct2: WriteCt2) -> None:
    folder = write_ct2(tmp_path / "ct2")
    (folder / "model.bin").write_bytes(model_bin({}, {}, specification="TransformerSpec"))
    with pytest.raises(SourceError, match="holds a TransformerSpec"):
        resolve(str(folder))


def test_a_weight_of_another_shape_than_the_rest_is_named(
    tmp_path: Path, write_ct2: WriteCt2, tiny_weights: Weights
) -> None:
    folder = write_ct2(tmp_path / "ct2")
    variables = ctranslate2_variables(tiny_weights, "float32")
    variables["decoder/layer_2/ffn/linear_1/weight"] = ("float32", np.zeros((3, 3), np.float32))
    (folder / "model.bin").write_bytes(model_bin(variables, {}))
    with pytest.raises(SourceError, match=r"decoder/layer_2/ffn/linear_1/weight.*\[3, 3\], expected \[32, 48\]"):
        resolve(str(folder))


def test_a_missing_weight_is_named(tmp_path: Path, write_ct2: WriteCt2, tiny_weights: Weights) -> None:
    folder = write_ct2(tmp_path / "ct2")
    variables = ctranslate2_variables(tiny_weights, "float32")
    del variables["encoder/layer_1/ffn/linear_0/bias"]
    (folder / "model.bin").write_bytes(model_bin(variables, {}))
    with pytest.raises(SourceError, match="encoder/layer_1/ffn/linear_0/bias"):
        resolve(str(folder))


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8", "int8_float16", "int16"])
def test_files_of_ctranslate2s_own_writer_are_read(
    kind: str, tmp_path: Path, tiny_weights: Weights, characters: list[str]
) -> None:
    """The same variables, quantized and written by the library itself."""
    specs = pytest.importorskip("ctranslate2.specs")
    spec = specs.WhisperSpec(LAYERS["encoder"], HEADS, LAYERS["decoder"], HEADS)
    for name, (_, array) in ctranslate2_variables(tiny_weights, "float32").items():
        scope, _, attribute = name.rpartition("/")
        if array.ndim:
            layer = spec
            for part in scope.split("/"):
                stem, _, index = part.rpartition("_")
                is_list = index.isdigit() and isinstance(getattr(layer, stem, None), list)
                layer = getattr(layer, stem)[int(index)] if is_list else getattr(layer, part)
            setattr(layer, attribute, array.copy())
    spec.decoder.projection.weight = tiny_weights["model.decoder.embed_tokens.weight"].copy()
    spec.register_vocabulary([*characters, *SPECIAL, *TIMESTAMPS])
    spec.validate()
    spec.optimize(quantization=kind)
    spec.save(str(tmp_path))
    tensors = resolve(str(tmp_path)).tensors
    assert tensors.names() == sorted(tiny_weights)
    for name, expected in tiny_weights.items():
        limit = TOLERANCES[kind] * float(np.abs(expected).max())
        found = tensors.load(name).astype(np.float32)
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit * 1.001, err_msg=name)
