import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from sottovoce_compiler.families import UnsupportedModelError, language_model
from sottovoce_compiler.families.causal import CausalModel, Float, Rope
from sottovoce_compiler.lowerings.gguf.metadata import general_name
from sottovoce_compiler.lowerings.gguf.model import graph_of
from sottovoce_compiler.lowerings.gguf.writer import write_gguf
from sottovoce_compiler.sources import resolve

from ...causal_case import MODELS, config_of, kl, random_model, save, source_logits
from . import llama_case

# llama.cpp looks Gemma's GELU up in a table of half precision: 6e-7 there, 1e-8 in the others (float32).
MAX_KL = {"gemma3": 1e-6}
OTHERS = 1e-7


def tokens_of(count: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(count).integers(3, 260, count)]


def written(name: str, folder: Path) -> tuple[Any, CausalModel, Path]:
    source = random_model(config_of(name))
    checkpoint = resolve(str(save(source, folder / "source")))
    model = language_model(checkpoint)
    write_gguf(model, checkpoint, folder / "model.gguf")
    return source, model, folder / "model.gguf"


# Sliding windows are 7 and 9; Phi-3's long factors begin above 256 positions, and llama.cpp rounds contexts up to 256.
@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_gives_the_sources_logits_at_every_position(name: str, tmp_path: Path) -> None:
    source, model, file = written(name, tmp_path)
    lengths = ((40, 256), (300, 512)) if "longrope" in name else ((1, 64), (48, 64))
    for length, context in lengths:
        tokens = tokens_of(length)
        expected = source_logits(source, tokens)
        found = llama_case.logits(file, tokens, context)
        assert kl(expected, found).max() < MAX_KL.get(model.spec.family, OTHERS)
        np.testing.assert_array_equal(found.argmax(axis=-1), expected.argmax(axis=-1))


def test_two_writes_give_the_same_bytes_and_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    _, _, file = written("llama 3", tmp_path)
    first = file.read_bytes()
    checkpoint = resolve(str(tmp_path / "source"))
    write_gguf(language_model(checkpoint), checkpoint, file)
    assert file.read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "source"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    _, model, file = written("llama", tmp_path)
    before = file.read_bytes()

    def fails(name: str, array: Float) -> Any:
        if name == "blk.2.ffn_up.weight":
            raise RuntimeError("no")
        return array, GGMLQuantizationType.F32

    with pytest.raises(RuntimeError, match="no"):
        write_gguf(model, resolve(str(tmp_path / "source")), file, fails)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "source"]


def test_each_tensor_is_asked_for_once_and_stored_as_its_quantization_says(tmp_path: Path) -> None:
    _, model, file = written("qwen2", tmp_path)
    asked: list[str] = []

    def halves(name: str, array: Float) -> Any:
        asked.append(name)
        if array.ndim == 1:
            return array, GGMLQuantizationType.F32
        return array.astype(np.float16), GGMLQuantizationType.F16

    write_gguf(model, resolve(str(tmp_path / "source")), file, halves, file_type=1)
    reader = GGUFReader(file)
    assert [tensor.name for tensor in reader.tensors] == asked
    assert len(set(asked)) == len(asked)
    assert reader.fields["general.file_type"].contents() == 1
    by_name = {tensor.name: tensor for tensor in reader.tensors}
    assert by_name["blk.0.attn_q.bias"].tensor_type == GGMLQuantizationType.F32
    down = by_name["blk.3.ffn_down.weight"]
    assert down.tensor_type == GGMLQuantizationType.F16
    np.testing.assert_array_equal(down.data, model.load("down", 3).astype(np.float16))
    source_tokens = tokens_of(9)
    assert llama_case.logits(file, source_tokens, 64).shape[0] == 9


def test_bytes_that_are_not_the_tensor_are_refused(tmp_path: Path) -> None:
    _, model, file = written("llama", tmp_path)
    with pytest.raises(ValueError, match=r"token_embd\.weight: .* bytes of Q8_0 are not \(300, 48\) values"):
        write_gguf(
            model,
            resolve(str(tmp_path / "source")),
            file,
            lambda name, array: (array.astype(np.int8), GGMLQuantizationType.Q8_0),
        )


def test_the_file_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    save(random_model(config_of("qwen3")), tmp_path / "source")
    (tmp_path / "source" / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [2, 7]})
    )
    (tmp_path / "source" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "source" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    checkpoint = resolve(str(tmp_path / "source"))
    fetched = replace(checkpoint, spec="hf:some/model", name="model", revision="abc")
    for source, spec in ((checkpoint, None), (fetched, "hf:some/model")):
        write_gguf(language_model(source), source, tmp_path / "model.gguf")
        fields = {key: field.contents() for key, field in GGUFReader(tmp_path / "model.gguf").fields.items()}
        assert fields.get("general.source") == spec
        assert str(tmp_path) not in str(fields)
    expected = {
        "general.architecture": "qwen3",
        "general.type": "model",
        "general.name": "model",
        "general.license": "Apache-2.0",
        "general.source.revision": "abc",
        "general.sampling.top_k": 20,
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 7,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 16,
        "qwen3.context_length": 64,
    }
    assert {key: fields[key] for key in expected} == expected
    assert fields["general.sampling.temp"] == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["mistral", "qwen2", "phi3"])
def test_where_llama_cpp_has_no_sliding_window_the_context_is_the_window(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    config.sliding_window, config.use_sliding_window, config.max_window_layers = 20, True, 2
    if name == "qwen2":
        config.layer_types = ["full_attention"] * 2 + ["sliding_attention"] * 2
    source = random_model(config)
    checkpoint = resolve(str(save(source, tmp_path / "source")))
    notes = write_gguf(language_model(checkpoint), checkpoint, tmp_path / "model.gguf")
    assert "the context is 20 positions, the window, instead of 64" in notes[0]
    reader = GGUFReader(tmp_path / "model.gguf")
    assert (
        reader.fields[f"{graph_of(language_model(checkpoint).spec, '').architecture}.context_length"].contents() == 20
    )
    tokens = tokens_of(20)
    found = llama_case.logits(tmp_path / "model.gguf", tokens, 64)
    assert kl(source_logits(source, tokens), found).max() < OTHERS


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen2", {"rope": Rope(8, 1e4, factors=(1.0,) * 4)}, "does not scale the rotation of a qwen2 by factors"),
        ("llama", {"rope": Rope(4, 1e4)}, "4 of 8 values of a head turn; llama.cpp's llama turns all"),
        ("qwen2", {"head_width": 10, "rope": Rope(10, 1e4)}, "6 heads of 10 are not the width 48"),
        ("smollm3", {"rope_layers": (True,) * 5}, "no_rope_layers is not every fourth layer"),
        ("gemma3", {"attention_scale": 0.2}, "query_pre_attn_scalar is 25; llama.cpp's gemma3 of 4 layers has 16"),
        ("gemma3", {"local_rope": Rope(16, 1e4, linear_factor=2.0)}, "does not scale the rotation of sliding layers"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    checkpoint = resolve(str(save(random_model(config_of(name)), tmp_path)))
    model = language_model(checkpoint)
    with pytest.raises(UnsupportedModelError, match=message):
        write_gguf(replace(model, spec=replace(model.spec, **changes)), checkpoint, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_the_name_makes_llama_cpp_strip_after_special_tokens_exactly_where_the_source_does() -> None:
    assert general_name("Phi-3-mini", False) == "Phi 3-mini"
    assert general_name("my-PHI3", False) == "my-PHI 3"
    assert general_name("Phi-3-mini", True) == "Phi-3-mini"
    assert general_name("tuned", True) == "tuned (phi-3)"
    assert general_name("llama", False) == "llama"
