from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gguf import tiny_gguf, tiny_lora

from sottovoce.engines.llama_cpp import engine as engine_module
from sottovoce.engines.llama_cpp.checks import check_adapter, check_model
from sottovoce.engines.llama_cpp.engine import LlamaCpp
from sottovoce.errors import BundleError, InputError
from sottovoce.gguf import GgufFile, GgufTensor, read_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    return read_gguf(tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    return read_gguf(tiny_lora(tmp_path_factory.mktemp("lora") / "lora.gguf"))


def changed(file: GgufFile, values: dict[str, Any]) -> GgufFile:
    """The file with other metadata; a value of None takes the key away."""
    metadata = {**file.metadata, **values}
    return replace(file, metadata={key: value for key, value in metadata.items() if value is not None})


def test_a_good_model_is_described(model: GgufFile) -> None:
    facts = check_model(model)
    assert (facts.architecture, facts.layers, facts.width, facts.ffn, facts.heads) == ("llama", 2, 64, 128, 4)
    assert (facts.context, facts.vocabulary, facts.pooling) == (256, 290, None)
    assert facts.position_values == 2 * 2 * (16 + 16)  # layers, heads of keys and values, their widths
    assert check_model(changed(model, {"llama.pooling_type": 1})).pooling == 1


def test_numbers_may_be_given_for_each_layer(model: GgufFile) -> None:
    heads = np.array([4, 4], np.int32)
    facts = check_model(changed(model, {"llama.attention.head_count_kv": np.array([2, 1], np.int32)}))
    assert facts.position_values == (2 + 1) * 32
    assert check_model(changed(model, {"llama.attention.head_count": heads})).heads == 4


# Each of these ended the process inside llama.cpp, or would.
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"general.architecture": None}, "general.architecture is None"),
        ({"general.architecture": 7}, "general.architecture is 7"),
        ({"general.architecture": "../etc"}, "general.architecture is '../etc'"),
        ({"general.type": "adapter"}, "general.type is 'adapter'"),
        ({"general.type": 3}, "general.type is 3"),
        ({"split.count": 3}, "one part of a model that was split"),
        ({"llama.block_count": 0}, "llama.block_count is 0; 1 to 512"),
        ({"llama.block_count": 513}, "llama.block_count is 513"),
        ({"llama.block_count": True}, "llama.block_count is True"),
        ({"llama.block_count": None}, "llama.block_count is None"),
        ({"llama.nextn_predict_layers": 2}, "llama.nextn_predict_layers is 2"),
        ({"llama.context_length": 0}, "llama.context_length is 0"),
        ({"llama.embedding_length": 0}, "llama.embedding_length is 0"),
        ({"llama.attention.head_count": 5}, "layer 0 has 5 heads over 2"),
        ({"llama.attention.head_count": 6, "llama.attention.head_count_kv": 6}, "6 heads do not divide a width of 64"),
        ({"llama.attention.head_count": np.array([4])}, "llama.attention.head_count has not 2 numbers"),
        ({"llama.attention.head_count_kv": "2"}, "llama.attention.head_count_kv is '2'"),
        ({"llama.attention.key_length": 0}, "llama.attention.key_length is 0"),
        ({"llama.attention.key_length": 32}, "llama.rope.dimension_count is 16; a head has 32"),
        ({"llama.attention.value_length": 8}, "key_length is 16, value_length 8"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count is 8"),
        ({"llama.rope.scaling.type": "new"}, "llama.rope.scaling.type is 'new'"),
        ({"llama.rope.freq_base": float("nan")}, "llama.rope.freq_base is nan"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "layer_norm_rms_epsilon is -1.0"),
        ({"llama.expert_count": 8}, "0 of 8 experts"),
        ({"llama.expert_count": 2, "llama.expert_used_count": 3}, "3 of 2 experts"),
        ({"llama.expert_group_count": 2}, "0 experts in 2 groups"),
        ({"llama.pooling_type": 9}, "llama.pooling_type is 9"),
        ({"tokenizer.ggml.model": "rwkv"}, "tokenizer.ggml.model is 'rwkv'"),
        ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model is None"),
        ({"tokenizer.ggml.tokens": []}, "tokenizer.ggml.tokens is not a list"),
        ({"tokenizer.ggml.tokens": np.zeros(3)}, "tokenizer.ggml.tokens is not a list"),
        ({"tokenizer.ggml.tokens": ["a", "b", "a", "", ""]}, "has 1 tokens twice"),
        ({"tokenizer.ggml.tokens": ["[EMPTY_1]", ""]}, "has 1 tokens twice"),
        ({"tokenizer.ggml.model": "llama"}, "has no token for byte 0"),
    ],
)
def test_what_llama_cpp_would_not_survive_is_refused(model: GgufFile, values: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_model(changed(model, values))
    assert message in str(caught.value) and "tiny.gguf" in str(caught.value)


def test_a_hostile_file_never_reaches_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "load_library", lambda: pytest.fail("the library was asked"))
    good = tiny_gguf(tmp_path / "good.gguf").read_bytes()
    for number, bad in enumerate(
        (good[:5000], good.replace(b"GGUF\3", b"GGUF\x09"), good.replace(b"\0gpt2", b"\0rwkv"))
    ):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(bad)
        with pytest.raises(BundleError):
            LlamaCpp(path).load()


def test_an_adapter_for_this_model_passes(model: GgufFile, adapter: GgufFile) -> None:
    check_adapter(adapter, model)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"general.type": "model"}, InputError, "general.type is 'model', expected 'adapter'"),
        ({"adapter.type": "control_vector"}, InputError, "adapter.type is 'control_vector', expected 'lora'"),
        ({"general.architecture": "gemma3"}, InputError, "made for 'gemma3'; the model is 'llama'"),
        ({"general.architecture": 3}, BundleError, "general.architecture is 3"),
        ({"adapter.lora.alpha": 8}, BundleError, "adapter.lora.alpha is 8"),
        ({"adapter.lora.alpha": float("inf")}, BundleError, "adapter.lora.alpha is inf"),
        ({"adapter.alora.invocation_tokens": np.array([1])}, InputError, "an activated LoRA"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    model: GgufFile, adapter: GgufFile, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        check_adapter(changed(adapter, values), model)
    assert message in str(caught.value)


NAME = "blk.0.attn_q.weight"


@pytest.mark.parametrize(
    ("name", "shape", "kind", "message"),
    [
        (f"{NAME}.lora_b", (32, 4), "F32", "is (64, 64) in the model; a (4, 64) and b (32, 4) do not fit"),
        (f"{NAME}.lora_b", (64, 5), "F32", "do not fit"),
        (f"{NAME}.lora_a", (4, 63), "F32", "do not fit"),
        (f"{NAME}.lora_a", (4,), "F32", "only matrices"),
        (f"{NAME}.lora_a", (4, 64), "I32", "is stored as I32"),
        ("blk.9.attn_q.weight.lora_a", (4, 64), "F32", "'blk.9.attn_q.weight' has only lora_a"),
        ("blk.0.attn_q.weight", (4, 64), "F32", "is no half of a LoRA pair"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    model: GgufFile, adapter: GgufFile, name: str, shape: tuple[int, ...], kind: str, message: str
) -> None:
    tensors = {**adapter.tensors, name: GgufTensor(name, shape, kind, 0, 4)}
    with pytest.raises(InputError) as caught:
        check_adapter(replace(adapter, tensors=tensors), model)
    assert message in str(caught.value)


def test_an_adapter_for_an_embedding_that_is_the_head_too_is_refused(model: GgufFile, adapter: GgufFile) -> None:
    # llama.cpp would take the embedding's halves, which lie the other way round, for the head's, and end the process.
    rows, width = model.tensors["token_embd.weight"].shape
    pair = {
        f"token_embd.weight.lora_{half}": GgufTensor(f"token_embd.weight.lora_{half}", (count, 4), "F32", 0, 4)
        for half, count in (("a", rows), ("b", width))
    }
    with pytest.raises(InputError, match="which in this model is the head too"):
        check_adapter(replace(adapter, tensors=pair), model)
    head = replace(model.tensors["token_embd.weight"], name="output.weight")
    untied = replace(model, tensors={**model.tensors, "output.weight": head})
    check_adapter(replace(adapter, tensors=pair), untied)


def test_an_adapter_for_a_tensor_the_model_does_not_have_and_an_empty_one_are_refused(
    model: GgufFile, adapter: GgufFile
) -> None:
    pair = {f"x.lora_{half}": GgufTensor(f"x.lora_{half}", (4, 4), "F32", 0, 64) for half in "ab"}
    with pytest.raises(InputError, match="the model has no tensor 'x'"):
        check_adapter(replace(adapter, tensors=pair), model)
    with pytest.raises(InputError, match="would change nothing"):
        check_adapter(replace(adapter, tensors={}), model)
