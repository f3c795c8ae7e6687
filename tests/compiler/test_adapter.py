import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.runtime.random_whisper import FFN, WIDTH, random_checkpoint

from sottovoce.bundle import open_bundle
from sottovoce_compiler.adapter import note_on_base, placed, with_adapter
from sottovoce_compiler.families import language_model
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.report.causal_source import CausalSource
from sottovoce_compiler.sources import Checkpoint, SourceError, resolve
from sottovoce_compiler.sources.peft import open_adapter

from .causal_case import config_of, kl, random_model, save, source_logits
from .lora_case import change_tensors, save_lora
from .pipeline_case import nothing_slow, request

TOKENS = [5, 80, 7, 120, 33]


def prepared(folder: Path, name: str = "llama", **config: Any) -> tuple[Any, Checkpoint]:
    """The model that peft merged, and the source; the adapter is in folder / "lora"."""
    source = random_model(config_of(name))
    checkpoint = resolve(str(save(source, folder / "source")))
    return save_lora(source, folder / "lora", **config), checkpoint


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "phi3"])
def test_the_merged_weights_are_pefts(name: str, config: dict[str, Any], tmp_path: Path) -> None:
    merged, checkpoint = prepared(tmp_path, name, **config)
    adapted = with_adapter(checkpoint, open_adapter(tmp_path / "lora"))
    assert adapted.tensors.names() == checkpoint.tensors.names()
    expected = merged.state_dict()
    for name in adapted.tensors.names():
        assert adapted.tensors.shape(name) == checkpoint.tensors.shape(name)
        np.testing.assert_allclose(adapted.tensors.load(name), expected[name].numpy(), rtol=0, atol=2e-6)
    assert kl(source_logits(merged, TOKENS), CausalSource(adapted).logits(TOKENS)).max() < 1e-9


def test_the_adapted_checkpoint_names_both_and_digests_both(tmp_path: Path) -> None:
    _, checkpoint = prepared(tmp_path)
    (tmp_path / "lora" / "README.md").write_text("---\nlicense: mit\n---\n")
    checkpoint = replace(checkpoint, licence="Apache-2.0")
    adapter = open_adapter(tmp_path / "lora")
    adapted = with_adapter(checkpoint, adapter)
    assert (adapted.name, adapted.licence) == ("source+lora", "Apache-2.0 AND MIT")
    added = {f"adapter/{name}": digest for name, digest in adapter.sha256.items()}
    assert adapted.sha256 == {**checkpoint.sha256, **added} and len(added) == 2


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_names_may_have_another_prefix_than_the_stored_ones(name: str, tmp_path: Path) -> None:
    _, checkpoint = prepared(tmp_path, name)
    expected = placed(open_adapter(tmp_path / "lora"), checkpoint).keys()
    for prefix in ("", "language_model.model.", "model.language_model."):
        change_tensors(
            tmp_path / "lora",
            lambda found, prefix=prefix: {
                f"base_model.model.{prefix}{name[name.index('layers.') :]}": value for name, value in found.items()
            },
        )
        assert placed(open_adapter(tmp_path / "lora"), checkpoint).keys() == expected


def test_an_adapter_of_another_model_is_refused_by_the_module_that_differs(tmp_path: Path) -> None:
    prepared(tmp_path)
    adapter = open_adapter(tmp_path / "lora")
    wide = resolve(str(save(random_model(config_of("llama, wide heads")), tmp_path / "wide")))
    with pytest.raises(SourceError, match=r"layers\.0\.self_attn\.k_proj of \(16, 48\); in wide it is \(32, 48\)"):
        placed(adapter, wide)
    phi = resolve(str(save(random_model(config_of("phi3")), tmp_path / "phi")))
    with pytest.raises(SourceError, match=r"gate_proj, which is no matrix of phi: it was made for another model"):
        placed(adapter, phi)


@pytest.mark.parametrize("module", ["vision_tower.layers.0.self_attn.q_proj", "model.embed_tokens", "model.norm"])
def test_nothing_is_applied_in_part(module: str, tmp_path: Path) -> None:
    _, checkpoint = prepared(tmp_path, target_modules="all-linear")
    q = "base_model.model.model.layers.0.self_attn.q_proj"
    change_tensors(
        tmp_path / "lora",
        lambda found: {name.replace(q, f"base_model.model.{module}"): value for name, value in found.items()},
    )
    (tmp_path / "lora" / "adapter_config.json").write_text(
        (tmp_path / "lora" / "adapter_config.json").read_text().replace('"q_proj"', '"q_proj", "embed_tokens", "norm"')
    )
    with pytest.raises(SourceError, match=f"changes {module}, which is no matrix of source"):
        placed(open_adapter(tmp_path / "lora"), checkpoint)


def test_a_head_that_is_the_embedding_too_cannot_be_adapted(tmp_path: Path) -> None:
    _, checkpoint = prepared(tmp_path, "qwen2", target_modules=["q_proj", "lm_head"])
    assert language_model(checkpoint).spec.tied
    with pytest.raises(SourceError, match="lm_head, which in source is the embedding too; that is not supported"):
        with_adapter(checkpoint, open_adapter(tmp_path / "lora"))


def test_a_head_that_was_saved_with_its_pair_must_be_the_bases(tmp_path: Path) -> None:
    _, checkpoint = prepared(tmp_path, target_modules=["q_proj", "lm_head"])
    assert "lm_head.weight" in placed(open_adapter(tmp_path / "lora"), checkpoint)
    name = "base_model.model.lm_head.base_layer.weight"
    change_tensors(tmp_path / "lora", lambda found: {**found, name: found[name].bfloat16()})
    assert "lm_head.weight" in placed(open_adapter(tmp_path / "lora"), checkpoint)
    change_tensors(tmp_path / "lora", lambda found: {**found, name: found[name] * 1.1})
    with pytest.raises(SourceError, match="replaces lm_head of source too; merge it"):
        placed(open_adapter(tmp_path / "lora"), checkpoint)


def test_another_name_for_the_base_is_a_note_and_no_error(tmp_path: Path) -> None:
    _, checkpoint = prepared(tmp_path)
    adapter = open_adapter(tmp_path / "lora")
    for base, noted in ((None, False), ("Org/Source", False), (checkpoint.spec, False), ("Org/Other", True)):
        note = note_on_base(replace(adapter, base=base), checkpoint)
        assert (note is not None) == noted
    assert note == "lora says that it was trained on 'Org/Other'; it is taken for source"


def whisper_lora(folder: Path, modules: dict[str, tuple[int, int]]) -> Path:
    """An adapter as peft names it in transformers' Whisper; `modules` with the shapes of their weights."""
    random = np.random.default_rng(3)
    tensors = {}
    for module, (rows, columns) in modules.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = random.normal(0, 1, (2, columns)).astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = random.normal(0, 1, (rows, 2)).astype(np.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    return folder


def test_a_whisper_is_compiled_with_an_adapter_like_any_other(tmp_path: Path) -> None:
    layers = {
        "model.encoder.layers.0.self_attn.q_proj": (WIDTH, WIDTH),
        "model.decoder.layers.1.encoder_attn.v_proj": (WIDTH, WIDTH),
        "model.decoder.layers.0.fc1": (FFN, WIDTH),
    }
    lora = whisper_lora(tmp_path / "lora", layers)
    base = random_checkpoint()
    adapted = with_adapter(base, open_adapter(lora))
    changed = {
        name.removesuffix(".weight")
        for name in base.tensors.names()
        if not np.array_equal(base.tensors.load(name), adapted.tensors.load(name))
    }
    assert changed == layers.keys()
    a, b = next(pair for pair in open_adapter(lora).pairs if pair.module.endswith("fc1")).load()
    name = "model.decoder.layers.0.fc1.weight"
    np.testing.assert_allclose(adapted.tensors.load(name), base.tensors.load(name) + 2 * b @ a, atol=1e-6)
    with nothing_slow():
        compiled = compile_model(replace(request(tmp_path / "x.svb"), adapter=lora))
    assert compiled.report["adapter"]["wer"] == {"base": 0.5, "adapted": 0.25, "bundle": 0.25}
    assert "changes 3 matrices" in compiled.tables[0].title
    manifest = open_bundle(compiled.bundle).manifest
    assert manifest.name == "random+lora" and "adapter/adapter_model.safetensors" in manifest.source.sha256


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("proj_out", "changes proj_out, which in random is the embedding too"),
        ("model.encoder.conv1", "changes model.encoder.conv1, which is no matrix of random"),
        ("model.decoder.embed_positions", "embed_positions, which is no matrix"),
    ],
)
def test_what_a_whisper_does_not_multiply_by_in_a_layer_is_refused(module: str, said: str, tmp_path: Path) -> None:
    lora = open_adapter(whisper_lora(tmp_path / "lora", {module: (WIDTH, WIDTH)}))
    with pytest.raises(SourceError, match=said):
        with_adapter(random_checkpoint(), lora)
