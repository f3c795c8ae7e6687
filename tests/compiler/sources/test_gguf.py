"""A GGUF file as a source against the model that it was written from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from sottovoce_compiler.families import language_model
from sottovoce_compiler.families.causal import MODEL_ROLES
from sottovoce_compiler.lowerings.gguf.writer import write_gguf
from sottovoce_compiler.report.causal_source import CausalSource
from sottovoce_compiler.sources import Checkpoint, SourceError, gguf_config, resolve
from sottovoce_compiler.sources.gguf import open_gguf

from ..causal_case import config_of, random_model, save, source_logits
from .gguf_case import LLAMA3, NAMES, rewrite, rewrite_as, written

TOKENS = [int(token) for token in np.random.default_rng(3).integers(3, 260, 40)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return written("llama", tmp_path)[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_the_one_that_was_written(name: str, tmp_path: Path) -> None:
    source, original, file = written(name, tmp_path)
    found = open_gguf(file)
    before, after = language_model(original), language_model(found)
    # A file holds single precision: 0.1 comes back, its double does not always.
    assert _close(after.spec, before.spec)
    roles = [(role, None) for role in MODEL_ROLES if role != "head" or not before.spec.tied]
    for role, layer in [*roles, *((role, 1) for role in before.spec.layer_roles())]:
        plus_one = before.spec.family == "gemma3" and role.endswith("norm")
        np.testing.assert_allclose(
            after.load(role, layer), before.load(role, layer), rtol=0, atol=1e-6 if plus_one else 0, err_msg=role
        )
    np.testing.assert_allclose(CausalSource(found).logits(TOKENS), source_logits(source, TOKENS), atol=2e-5)


def _close(found: Any, expected: Any) -> bool:
    for slot in expected.__slots__:
        one, other = getattr(found, slot), getattr(expected, slot)
        if hasattr(other, "__slots__"):
            assert _close(one, other), slot
        elif (isinstance(other, tuple) and other and isinstance(other[0], float)) or isinstance(other, float):
            np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=slot)
        else:
            assert one == other, slot
    return True


def test_what_is_stored_smaller_is_read_as_float32(tmp_path: Path) -> None:
    config = config_of("llama")
    config.hidden_size, config.num_attention_heads, config.intermediate_size = 64, 8, 96  # rows of 32's multiples
    checkpoint = resolve(str(save(random_model(config), tmp_path / "source")))
    write_gguf(language_model(checkpoint), checkpoint, tmp_path / "plain.gguf")
    for kind, within in (
        (GGMLQuantizationType.F16, 1e-3),
        (GGMLQuantizationType.BF16, 8e-3),
        (GGMLQuantizationType.Q8_0, 6e-3),
        (GGMLQuantizationType.Q4_0, 0.2),
    ):
        found = open_gguf(rewrite_as(tmp_path / "plain.gguf", kind)).tensors
        for name in ("model.layers.2.mlp.down_proj.weight", "model.layers.1.self_attn.q_proj.weight"):
            expected, read = checkpoint.tensors.load(name), found.load(name)
            assert read.dtype == np.float32
            assert 0 < np.abs(read - expected).max() < within * np.abs(expected).max(), (kind, name)


def test_llama_3s_scaling_comes_back_from_its_factors(tmp_path: Path) -> None:
    found = open_gguf(written("llama 3", tmp_path)[2]).config["rope_parameters"]
    assert found == LLAMA3


def test_factors_that_are_not_llama_3s_are_refused(tmp_path: Path) -> None:
    file = written("llama 3", tmp_path)[2]
    changed = rewrite(file, tensors={"rope_freqs.weight": np.array([1, 2, 3, 32], np.float32)})
    with pytest.raises(SourceError, match="rope_freqs are not those of Llama 3; give the original"):
        open_gguf(changed)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, ("linear", 4.0)),
        ({"llama.rope.scaling.factor": 4.0}, ("linear", 4.0)),
        ({"llama.rope.scale_linear": 2.5}, ("linear", 2.5)),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, ("default", None)),
        ({"llama.rope.scaling.factor": 0.0}, ("default", None)),
    ],
)
def test_rotation_is_scaled_where_llama_cpp_scales_it(changes: Any, expected: Any, llama: Path) -> None:
    found = open_gguf(rewrite(llama, changes)).config["rope_parameters"]
    assert (found["rope_type"], found.get("factor")) == expected


def test_a_sliding_pattern_is_read_as_a_list_as_a_number_and_without_a_window_as_none(tmp_path: Path) -> None:
    file = written("gemma3", tmp_path)[2]
    key = "gemma3.attention.sliding_window_pattern"
    for value, expected in (
        ([True, False, True, False], "SFSF"),
        (2, "SFSF"),
        (3, "SSFS"),
        (0, "SSSS"),
        (None, "SSSS"),  # every sixth of four
    ):
        types = open_gguf(rewrite(file, {key: value})).config["layer_types"]
        assert "".join("S" if one == "sliding_attention" else "F" for one in types) == expected
    assert set(open_gguf(rewrite(file, {"gemma3.attention.sliding_window": None})).config["layer_types"]) == {
        "full_attention"
    }
    for bad in ([True], "2", -1):
        with pytest.raises(SourceError, match=rf"{key} is .*, expected a number or one for each of 4"):
            open_gguf(rewrite(file, {key: bad}))


def test_the_checkpoint_says_what_the_file_says(tmp_path: Path, llama: Path) -> None:
    stated = {
        "general.license": "apache-2.0",
        "general.sampling.temp": 0.5,
        "general.sampling.top_k": 20,
        "general.sampling.top_p": True,
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.ggml.add_bos_token": True,
        "llama.pooling_type": 3,
    }
    found = open_gguf(rewrite(llama, stated))
    assert (found.name, found.licence, found.revision) == ("changed", "Apache-2.0", None)
    assert found.generation_config == {"temperature": 0.5, "top_k": 20}
    assert (found.chat_template, found.pooling) == ("{{ messages }}", "last")
    assert found.tokenizer_config["bos_token"] == "<s>" and found.tokenizer_config["eos_token"] == "</s>"
    assert found.tokenizer_config["add_bos_token"] is True and found.tokenizer_config["add_eos_token"] is False
    assert list(found.sha256) == ["changed.gguf"] and len(found.sha256["changed.gguf"]) == 64
    assert found.vocabulary[:4] == ["<pad>", "<s>", "</s>", b"!"] and found.vocabulary[259] == b"th"


def test_every_end_of_an_answer_is_known() -> None:
    tokens = [f"token {index}" for index in range(300)]
    tokens[5] = "<|im_end|>"
    more = {"tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 2}
    values = {"general.architecture": "llama", **_sizes(), "tokenizer.ggml.tokens": tokens}
    row, data = gguf_config.architecture_of("x", {**values, "tokenizer.ggml.eos_token_id": 2, **more})
    assert gguf_config.config_of(row, data, _shapes(), {})["eos_token_id"] == [2, 7, 5]
    row, data = gguf_config.architecture_of(
        "x", {**values, "tokenizer.ggml.eos_token_id": 300, "tokenizer.ggml.bos_token_id": 1}
    )
    found = gguf_config.config_of(row, data, _shapes(), {})
    assert (found["eos_token_id"], found["bos_token_id"], found["pad_token_id"]) == (5, 1, None)


def _sizes() -> dict[str, Any]:
    sizes = {"attention.head_count": 2, "embedding_length": 16, "block_count": 1, "feed_forward_length": 32}
    return {f"llama.{key}": value for key, value in {**sizes, "context_length": 64}.items()} | {
        "llama.attention.layer_norm_rms_epsilon": 1e-5
    }


def _shapes() -> dict[str, tuple[int, ...]]:
    return {"token_embd.weight": (300, 16)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general.architecture": "mamba"}, r"'mamba' cannot be compiled from GGUF; known are gemma3, llama, phi3"),
        ({"split.count": 3}, "is one of 3 pieces; join them first"),
        ({"general.type": "adapter"}, "holds a 'adapter', not a model"),
        ({"llama.attention.head_count": None}, "head_count is missing, expected a int"),
        ({"llama.attention.head_count": "6"}, r"llama\.attention\.head_count is '6', expected a int"),
        ({"llama.attention.head_count": [6, 6, 6, 6]}, "head_count is array"),
        ({"llama.attention.head_count": 0}, "head_count is 0, expected at least 1"),
        ({"llama.attention.head_count": 4}, r"q_proj.weight has 48 rows, expected 4 heads of 8"),
        ({"llama.attention.head_count_kv": 3}, r"k_proj.weight has 16 rows, expected 3 heads of 8"),
        ({"llama.block_count": True}, "block_count is True, expected a int"),
        ({"llama.block_count": 1 << 40}, r"block_count is 1099511627776; there are 39 tensors"),
        ({"llama.embedding_length": -48}, "embedding_length is -48, expected at least 1"),
        ({"llama.attention.layer_norm_rms_epsilon": "x"}, "rms_epsilon is 'x', expected a float"),
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling 'yarn' cannot be compiled from GGUF"),
        ({"llama.rope.dimension_count": 4}, "4 of 8 values of a head turn, which llama has no config for"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer 't5' cannot be read from GGUF; known are gpt2 and llama"),
        ({"tokenizer.ggml.model": None}, "tokenizer 'None' cannot be read from GGUF"),
        ({"tokenizer.ggml.pre": "viking"}, "pre-tokenizer 'viking' is not known; known are .*smollm"),
        ({"tokenizer.ggml.pre": None}, "pre-tokenizer 'default' is not known"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens is missing or absurd"),
        ({"tokenizer.ggml.tokens": 7}, "tokenizer.ggml.tokens is missing or absurd"),
        ({"tokenizer.ggml.token_type": None}, "token_type is missing or not as long as the tokens"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "token_type is missing or not as long as the tokens"),
        ({"tokenizer.ggml.merges": None}, "merges is missing; without it text cannot become tokens"),
        ({"tokenizer.ggml.merges": ["t q"]}, "merge 0, 't q', is not of two tokens into a third"),
        ({"tokenizer.ggml.merges": ["th"]}, "merge 0, 'th', is not of two tokens into a third"),
        ({"tokenizer.chat_template": b"\xff{{"}, "tokenizer.chat_template is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_that_names_what(
    changes: dict[str, Any], said: str, llama: Path
) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        open_gguf(rewrite(llama, changes))
    assert "changed" in str(caught.value) or "mamba" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_is_long_in_a_file_is_cut_in_its_error(llama: Path) -> None:
    for key in ("general.type", "llama.rope.scaling.type", "tokenizer.ggml.pre", "tokenizer.ggml.model"):
        with pytest.raises(SourceError) as caught:
            open_gguf(rewrite(llama, {key: "x" * 5000}))
        assert len(str(caught.value)) < 400, key


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"token_embd.weight": None}, "there is no tensor token_embd.weight; the file holds no whole model"),
        ({"blk.0.ffn_gate_exps.weight": np.zeros((4, 4))}, r"'blk\.0\.ffn_gate_exps\.weight' has no place in llama"),
        ({"v.patch": np.zeros(4)}, r"tensor 'v\.patch' has no place in llama"),
        ({"rope_freqs.weight": np.ones((2, 2))}, r"rope_freqs\.weight has shape \(2, 2\), expected \(4,\)"),
        ({"blk.0.attn_q.weight": np.zeros((40, 48))}, "has 40 rows, expected 6 heads of 8"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tensors: dict[str, Any], said: str, llama: Path) -> None:
    arrays = {name: None if array is None else array.astype(np.float32) for name, array in tensors.items()}
    with pytest.raises(SourceError, match=said):
        open_gguf(rewrite(llama, tensors=arrays))


def test_one_of_two_tables_of_factors_is_refused(tmp_path: Path) -> None:
    file = written("phi3 partial, longrope", tmp_path)[2]
    for name in ("rope_factors_short.weight", "rope_factors_long.weight"):
        with pytest.raises(SourceError, match=f"there is no tensor {name}; longrope needs both"):
            open_gguf(rewrite(file, tensors={name: None}))


def test_a_layer_that_is_not_there_is_named_when_the_model_is_made(llama: Path) -> None:
    checkpoint = open_gguf(rewrite(llama, tensors={"blk.2.ffn_up.weight": None}))
    with pytest.raises(SourceError, match=r"there is no tensor 'model\.layers\.2\.mlp\.up_proj\.weight' in .*changed"):
        language_model(checkpoint)


def test_a_type_that_cannot_be_turned_into_numbers_is_named(llama: Path) -> None:
    changed = rewrite(llama, tensors={"blk.1.ffn_up.weight": np.zeros((80, 48), np.int8)})
    with pytest.raises(SourceError, match=r"blk\.1\.ffn_up\.weight is stored as type I8"):
        open_gguf(changed).tensors.load("model.layers.1.mlp.up_proj.weight")


def test_a_file_that_is_no_gguf_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"hello, this is not a model")
    with pytest.raises(SourceError, match="not a GGUF file"):
        resolve(str(tmp_path / "x.gguf"))


def test_a_model_is_found_by_its_file_or_by_the_folder_that_has_it_alone(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "one.gguf").write_bytes(llama.read_bytes())

    def same(found: Checkpoint) -> bool:
        return found.name == "one" and found.config["hidden_size"] == 48

    assert same(resolve(str(folder))) and same(resolve(str(folder / "one.gguf")))
    (folder / "two.gguf").write_bytes(b"")
    with pytest.raises(SourceError, match=r"has 2 models \(one\.gguf, two\.gguf\); give the path of one"):
        resolve(str(folder))
    assert same(resolve(str(folder / "one.gguf")))


def test_a_name_that_ends_in_gguf_is_a_file_and_not_a_name_of_ours(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama.parent)
    assert resolve("model.gguf").name == "model"
    for missing in ("mode.gguf", "owner/mode.gguf", "./mode.gguf"):
        with pytest.raises(SourceError, match=r"there is no file .*mode\.gguf"):
            resolve(missing)
