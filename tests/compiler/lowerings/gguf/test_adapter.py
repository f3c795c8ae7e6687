from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from sottovoce_compiler.adapter import with_adapter
from sottovoce_compiler.families import language_model
from sottovoce_compiler.lowerings.gguf.adapter import write_adapter
from sottovoce_compiler.lowerings.gguf.writer import write_gguf
from sottovoce_compiler.sources import Checkpoint, SourceError, resolve
from sottovoce_compiler.sources.peft import open_adapter

from ...causal_case import config_of, kl, random_model, save, source_logits
from ...lora_case import change_tensors, save_lora, targets_of
from . import llama_case

TOKENS = [int(token) for token in np.random.default_rng(7).integers(3, 260, 40)]
# llama.cpp looks Gemma's GELU up in a table of half precision.
MAX_KL = {"gemma3": 1e-6}
OTHERS = 1e-7
FAMILIES = ("llama, wide heads", "mistral", "qwen2", "qwen3", "gemma3", "smollm3", "phi3")


def prepared(name: str, folder: Path, **config: Any) -> tuple[Any, Any, Checkpoint]:
    """The source's model, it with the adapter merged by peft, and the checkpoint; an adapter in folder / "lora" and the
    base in float32 in folder / "base.gguf"."""
    source = random_model(config_of(name))
    checkpoint = resolve(str(save(source, folder / "source")))
    merged = save_lora(source, folder / "lora", **config)
    write_gguf(language_model(checkpoint), checkpoint, folder / "base.gguf")
    return source, merged, checkpoint


def written(checkpoint: Checkpoint, folder: Path, lora: str = "lora", precision: str = "fp32") -> Path:
    file = folder / f"{lora}.gguf"
    write_adapter(language_model(checkpoint), checkpoint, open_adapter(folder / lora), file, precision)
    return file


@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_with_the_adapter_gives_the_logits_of_torchs_merged_model(name: str, tmp_path: Path) -> None:
    source, merged, checkpoint = prepared(name, tmp_path)
    file = written(checkpoint, tmp_path)
    expected = source_logits(merged, TOKENS)
    assert kl(source_logits(source, TOKENS), expected).max() > 0.01  # it changes something
    found = llama_case.logits(tmp_path / "base.gguf", TOKENS, 64, {file: 1.0})
    assert kl(expected, found).max() < MAX_KL.get(language_model(checkpoint).spec.family, OTHERS)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_base_compiled_with_the_adapter_gives_them_too(name: str, tmp_path: Path) -> None:
    _, merged, checkpoint = prepared(name, tmp_path)
    adapted = with_adapter(checkpoint, open_adapter(tmp_path / "lora"))
    write_gguf(language_model(adapted), adapted, tmp_path / "merged.gguf")
    found = llama_case.logits(tmp_path / "merged.gguf", TOKENS, 64)
    assert kl(source_logits(merged, TOKENS), found).max() < MAX_KL.get(language_model(checkpoint).spec.family, OTHERS)


@pytest.mark.parametrize(
    "config",
    [
        {"use_rslora": True},
        {"r": 8, "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 3}, "alpha_pattern": {"v_proj": 20}},
        {"rank_pattern": {"k_proj": 6}, "use_rslora": True},
        {"target_modules": ["q_proj", "lm_head"]},
        {"layers_to_transform": [1, 3], "layers_pattern": "layers"},
        {"target_modules": "all-linear", "init_lora_weights": "gaussian"},
        {"target_modules": r".*\.(q|k)_proj"},
        {"lora_alpha": -3},
    ],
    ids=lambda config: "+".join(config),
)
def test_ranks_and_scales_are_pefts_for_every_matrix(config: dict[str, Any], tmp_path: Path) -> None:
    _, merged, checkpoint = prepared("llama", tmp_path, **config)
    file = written(checkpoint, tmp_path)
    expected = source_logits(merged, TOKENS)
    assert kl(expected, llama_case.logits(tmp_path / "base.gguf", TOKENS, 64, {file: 1.0})).max() < OTHERS
    adapted = with_adapter(checkpoint, open_adapter(tmp_path / "lora"))
    write_gguf(language_model(adapted), adapted, tmp_path / "merged.gguf")
    assert kl(expected, llama_case.logits(tmp_path / "merged.gguf", TOKENS, 64)).max() < OTHERS


def test_half_a_scale_is_half_the_change_and_two_adapters_add_up(tmp_path: Path) -> None:
    source, _, checkpoint = prepared("smollm3", tmp_path)
    save_lora(source, tmp_path / "second", seed=1, target_modules=["k_proj", "down_proj"], r=2)
    weights = dict(source.state_dict())
    for name, scale in (("lora", 0.5), ("second", -2.0)):
        for pair in open_adapter(tmp_path / name).pairs:
            a, b = pair.load()
            delta = torch.from_numpy(scale * pair.scale * (b @ a))
            weights[f"{pair.module}.weight"] = weights[f"{pair.module}.weight"] + delta
    both = random_model(config_of("smollm3"))
    both.load_state_dict(weights)
    files = {written(checkpoint, tmp_path): 0.5, written(checkpoint, tmp_path, "second"): -2.0}
    found = llama_case.logits(tmp_path / "base.gguf", TOKENS, 64, files)
    assert kl(source_logits(both, TOKENS), found).max() < OTHERS


def test_float16_is_half_the_size_and_close(tmp_path: Path) -> None:
    _, merged, checkpoint = prepared("llama", tmp_path)
    whole = written(checkpoint, tmp_path).stat().st_size
    file = written(checkpoint, tmp_path, precision="fp16")
    assert file.stat().st_size < 0.6 * whole
    found = llama_case.logits(tmp_path / "base.gguf", TOKENS, 64, {file: 1.0})
    assert 0 < kl(source_logits(merged, TOKENS), found).max() < 1e-3
    change_tensors(tmp_path / "lora", lambda tensors: {name: value * 1e6 for name, value in tensors.items()})
    with pytest.raises(SourceError, match="beyond float16; write it as fp32"):
        written(checkpoint, tmp_path, precision="fp16")


def test_the_file_names_its_base_by_the_weights_alone(tmp_path: Path) -> None:
    _, _, checkpoint = prepared("qwen2", tmp_path)
    (tmp_path / "lora" / "README.md").write_text("---\nlicense: mit\n---\n")
    checkpoint = replace(checkpoint, licence="Apache-2.0")
    fields = {key: field.contents() for key, field in GGUFReader(written(checkpoint, tmp_path)).fields.items()}
    assert fields["sottovoce.base.sha256"] == [checkpoint.sha256["model.safetensors"]]
    assert len(checkpoint.sha256) > 1
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    assert (fields["general.architecture"], fields["adapter.lora.alpha"]) == ("qwen2", 6.0)
    assert (fields["general.base_model.0.name"], fields["general.name"]) == ("source", "lora")
    assert (fields["general.license"], fields["sottovoce.base.license"]) == ("MIT", "Apache-2.0")
    assert not any(str(tmp_path) in str(value) for value in fields.values())
    with pytest.raises(SourceError, match="no file of weights"):
        written(replace(checkpoint, sha256={"config.json": "0" * 64}), tmp_path)


def test_two_writes_give_the_same_bytes_and_a_failed_one_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, checkpoint = prepared("llama", tmp_path)
    before = written(checkpoint, tmp_path).read_bytes()
    assert written(checkpoint, tmp_path).read_bytes() == before

    def full(*_: Any) -> None:
        raise RuntimeError("full")

    monkeypatch.setattr("gguf.GGUFWriter.write_tensors_to_file", full)
    with pytest.raises(RuntimeError, match="full"):
        written(checkpoint, tmp_path)
    assert (tmp_path / "lora.gguf").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.gguf", "lora", "lora.gguf", "source"]


def test_every_matrix_of_a_fused_model_has_an_adapter_once(tmp_path: Path) -> None:
    source, _, checkpoint = prepared("phi3", tmp_path)
    names = [tensor.name for tensor in GGUFReader(written(checkpoint, tmp_path)).tensors]
    assert len(set(names)) == len(names) == 2 * len(targets_of(source)) * source.config.num_hidden_layers
    assert {"blk.0.attn_qkv.weight.lora_a", "blk.3.ffn_up.weight.lora_b"} <= set(names)


def test_a_dora_adapter_is_not_written_but_compiled_into_its_base(tmp_path: Path) -> None:
    _, merged, checkpoint = prepared("llama", tmp_path, use_dora=True)
    with pytest.raises(SourceError, match=r"lora is a DoRA adapter, which no engine adds while it runs; compile it"):
        written(checkpoint, tmp_path)
    assert not (tmp_path / "lora.gguf").exists()
    adapted = with_adapter(checkpoint, open_adapter(tmp_path / "lora"))
    write_gguf(language_model(adapted), adapted, tmp_path / "merged.gguf")
    found = llama_case.logits(tmp_path / "merged.gguf", TOKENS, 64)
    assert kl(source_logits(merged, TOKENS), found).max() < OTHERS
