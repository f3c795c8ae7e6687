"""Adapters on disk: PEFT reads ours, we read PEFT's, and nothing is half written."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sottovoce.errors import InputError
from sottovoce_compiler.adapter import with_adapter
from sottovoce_compiler.families import language_model
from sottovoce_compiler.finetune.adapter_folder import (
    Card,
    check_folder,
    load_adapter,
    peft_config,
    save_adapter,
)
from sottovoce_compiler.finetune.model.adapted import Lora, attach_all, merge_difference
from sottovoce_compiler.finetune.model.decoder import Decoder
from sottovoce_compiler.sources import SourceError, resolve
from sottovoce_compiler.sources.peft import open_adapter

from ..lora_case import save_lora
from .model.decoder_case import CLOSE, batch_of, pair_of, theirs

CARD = Card("org/base", base_licence="MIT", data={"train.jsonl": "ab" * 32}, measured={"exact match": 0.3125})
KINDS = {
    "lora": Lora(4, 6.0),
    "rslora": Lora(4, 6.0, rank_stabilized=True),
    "dora": Lora(4, 6.0, dora=True, dropout=0.25),
    "a part of lora": Lora(4, 6.0, strength=0.6),
    "a part of rslora": Lora(4, 6.0, rank_stabilized=True, strength=0.3),
}


def trained(decoder: Decoder, lora: Lora, suffix: str = "") -> Decoder:
    """`decoder` with random adapters on the modules that end in `suffix`."""
    attach_all({name: layer for name, layer in decoder.linears().items() if name.endswith(suffix)}, lora)
    torch.manual_seed(5)
    with torch.no_grad():
        for layer in decoder.adapted().values():
            assert layer.lora_b is not None
            layer.lora_b.normal_(0, 0.3)
            if layer.magnitude is not None:
                layer.magnitude.mul_(1 + 0.3 * torch.rand_like(layer.magnitude))
    return decoder.eval()


def loaded_by_peft(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gemma3", "phi3"])
def test_peft_alone_loads_ours_and_gives_the_same_logits(name: str, kind: str, tmp_path: Path) -> None:
    model, decoder = pair_of(name, tmp_path)
    save_adapter(tmp_path / "lora", trained(decoder, KINDS[kind]).linears(), CARD)
    batch = batch_of(23, 9)
    with torch.no_grad():
        expected, base = decoder.logits(batch), theirs(model, batch)
        found = theirs(loaded_by_peft(model, tmp_path / "lora"), batch)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (expected - base).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compiled_with_it_is_what_was_trained(kind: str, tmp_path: Path) -> None:
    _, decoder = pair_of("qwen2", tmp_path)
    save_adapter(tmp_path / "lora", trained(decoder, KINDS[kind]).linears(), CARD)
    assert merge_difference(decoder.linears()).relative < 1e-5
    compiled = Decoder(language_model(with_adapter(resolve(str(tmp_path / "source")), open_adapter(tmp_path / "lora"))))
    batch = batch_of(23, 9)
    with torch.no_grad():
        torch.testing.assert_close(compiled.logits(batch), decoder.logits(batch), **CLOSE)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True, "use_rslora": True},
        {"r": 8, "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 3}, "alpha_pattern": {"v_proj": 20}},
        {"target_modules": ["q_proj", "down_proj"]},
        {"layers_to_transform": [1, 3], "layers_pattern": "layers"},
    ],
    ids=lambda config: "+".join(config) or "plain",
)
def test_one_of_pefts_is_trained_on_and_saved_again(config: dict[str, Any], tmp_path: Path) -> None:
    model, decoder = pair_of("llama", tmp_path)
    merged = save_lora(model, tmp_path / "theirs", **config)
    load_adapter(decoder.linears(), open_adapter(tmp_path / "theirs"))
    batch = batch_of(23, 9)
    with torch.no_grad():
        torch.testing.assert_close(decoder.logits(batch), theirs(merged, batch), rtol=1e-4, atol=1e-4)
    decoder(batch).total.backward()
    assert all(layer.lora_a is not None and layer.lora_a.grad is not None for layer in decoder.adapted().values())
    save_adapter(tmp_path / "ours", decoder.linears(), CARD)
    with torch.no_grad():
        found = theirs(loaded_by_peft(model, tmp_path / "ours"), batch)
        torch.testing.assert_close(found, theirs(merged, batch), rtol=1e-4, atol=1e-4)


def test_an_adapter_of_another_model_is_refused_and_nothing_is_attached(tmp_path: Path) -> None:
    model, _ = pair_of("llama, wide heads", tmp_path)
    (tmp_path / "other").mkdir()
    _, decoder = pair_of("llama", tmp_path / "other")
    save_lora(model, tmp_path / "wide")
    with pytest.raises(SourceError, match=r"layers\.0\.self_attn\.k_proj of \(32, 48\); here it is \(16, 48\)"):
        load_adapter(decoder.linears(), open_adapter(tmp_path / "wide"))
    save_lora(model, tmp_path / "head", target_modules=["q_proj", "lm_head"])
    with pytest.raises(SourceError, match="changes lm_head, which cannot be trained here"):
        load_adapter(decoder.linears(), open_adapter(tmp_path / "head"))
    assert not decoder.adapted()


def test_modules_are_named_by_their_ends_unless_that_would_name_others_too(tmp_path: Path) -> None:
    _, decoder = pair_of("llama", tmp_path)
    trained(decoder, KINDS["lora"], "_proj")
    assert peft_config(decoder.linears(), CARD)["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    decoder.linears()["model.layers.0.self_attn.q_proj"].detach()
    named = peft_config(decoder.linears(), CARD)["target_modules"]
    assert len(named) == 27 and "model.layers.1.self_attn.q_proj" in named


def test_the_folder_says_what_it_was_made_of(tmp_path: Path) -> None:
    _, decoder = pair_of("llama", tmp_path)
    trained(decoder, KINDS["rslora"])
    save_adapter(tmp_path / "lora", decoder.linears(), CARD, {"rank": 4}, {"log.jsonl": b"{}\n"})
    files = {file.name: file.read_bytes() for file in (tmp_path / "lora").iterdir()}
    assert sorted(files) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "log.jsonl",
        "settings.json",
    ]
    assert json.loads(files["settings.json"]) == {"rank": 4}
    card = files["README.md"].decode()
    assert card.startswith('---\nbase_model: "org/base"\nlibrary_name: "peft"\n') and "license" not in card
    for row in ("| its licence | MIT |", "| method | rsLoRA, rank 4, alpha 6 |", "| exact match | 0.3125 |"):
        assert row in card
    assert f"| data: train.jsonl | SHA-256 {'ab' * 32} |" in card
    adapter = open_adapter(tmp_path / "lora")
    assert (adapter.base, adapter.licence) == ("org/base", None)
    save_adapter(tmp_path / "again", decoder.linears(), CARD, {"rank": 4}, {"log.jsonl": b"{}\n"})
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == files


def test_another_adapter_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    _, decoder = pair_of("llama", tmp_path)
    trained(decoder, KINDS["lora"])
    save_adapter(tmp_path / "lora", decoder.linears(), CARD, {"rank": 1})
    save_adapter(tmp_path / "lora", decoder.linears(), CARD, {"rank": 2})
    assert json.loads((tmp_path / "lora" / "settings.json").read_text()) == {"rank": 2}
    (tmp_path / "lora" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"lora holds 'thesis\.tex', which is not part of the adapter there"):
        save_adapter(tmp_path / "lora", decoder.linears(), CARD)
    assert json.loads((tmp_path / "lora" / "settings.json").read_text()) == {"rank": 2}
    with pytest.raises(InputError, match="source is a folder and no adapter's"):
        save_adapter(tmp_path / "source", decoder.linears(), CARD)
    for path, said in ((tmp_path / "none" / "x", "there is no folder"), (tmp_path / "file", "is not a folder")):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match=said):
            check_folder(path)


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, decoder = pair_of("llama", tmp_path)
    trained(decoder, KINDS["lora"])
    save_adapter(tmp_path / "lora", decoder.linears(), CARD, {"rank": 1})
    before = {file.name: file.read_bytes() for file in (tmp_path / "lora").iterdir()}

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(Exception, match="No space left"):
        save_adapter(tmp_path / "lora", decoder.linears(), CARD, {"rank": 2})
    assert {file.name: file.read_bytes() for file in (tmp_path / "lora").iterdir()} == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["lora", "source"]


def test_without_an_adapter_there_is_nothing_to_save(tmp_path: Path) -> None:
    _, decoder = pair_of("llama", tmp_path)
    with pytest.raises(InputError, match="no layer has an adapter"):
        save_adapter(tmp_path / "lora", decoder.linears(), CARD)
    assert not (tmp_path / "lora").exists()
