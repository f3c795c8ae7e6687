import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sottovoce_compiler.sources import SourceError
from sottovoce_compiler.sources.peft import open_adapter

from ..causal_case import config_of, random_model
from ..lora_case import change_config, change_tensors, save_lora

Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    save_lora(random_model(config_of("llama")), tmp_path / "lora")
    return tmp_path / "lora"


def test_an_adapter_says_what_it_changes_and_by_how_much(lora: Path) -> None:
    change_config(lora, base_model_name_or_path="org/Base")
    found = open_adapter(lora)
    assert (found.name, found.base, len(found.pairs)) == ("lora", "org/Base", 28)
    assert sorted(found.sha256) == ["adapter_config.json", "adapter_model.safetensors"]
    for unknown in (None, "", "None"):
        change_config(lora, base_model_name_or_path=unknown)
        assert open_adapter(lora).base is None
    pair = next(pair for pair in found.pairs if pair.module == "model.layers.0.self_attn.k_proj")
    assert (pair.shape, pair.rank, pair.scale) == ((16, 48), 4, 1.5)
    a, b = pair.load()
    assert (a.shape, b.shape, a.dtype) == ((4, 48), (16, 4), np.float32)


def test_half_precision_is_widened(lora: Path) -> None:
    before = open_adapter(lora).pairs[0].load()[0]
    change_tensors(lora, lambda tensors: {name: value.bfloat16() for name, value in tensors.items()})
    after = open_adapter(lora).pairs[0].load()[0]
    assert after.dtype == np.float32
    np.testing.assert_array_equal(after, torch.from_numpy(before).bfloat16().float().numpy())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "LOHA"}, "peft_type = 'LOHA'; only LORA"),
        ({"use_dora": True}, r"has no lora_magnitude_vector of model\.layers\.0\.mlp\.down_proj; save"),
        ({"use_dora": "yes"}, "use_dora = 'yes'; true or false"),
        ({"modules_to_save": ["embed_tokens"]}, r"modules_to_save = \['embed_tokens'\]"),
        ({"bias": "all"}, "bias = 'all'; only 'none'"),
        ({"lora_bias": True}, "lora_bias = True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = True"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora"),
        ({"of_a_later_peft": {"x": 1}}, "of_a_later_peft"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'; that changes the base too"),
        ({"init_lora_weights": "olora"}, "init_lora_weights = 'olora'"),
        ({"init_lora_weights": 1}, "init_lora_weights = 1"),
        ({"use_rslora": "yes"}, "use_rslora = 'yes'; true or false"),
        ({"lora_alpha": 0}, "lora_alpha = 0; a number other than 0"),
        ({"lora_alpha": None}, "lora_alpha = None"),
        ({"lora_alpha": 1e9}, r"lora_alpha = 1000000000\.0"),
        ({"alpha_pattern": {"q_proj": "6"}}, "alpha_pattern"),
        ({"alpha_pattern": {r".*\.q_proj": 6}}, "alpha_pattern = .*; an object of plain module names"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern = .*; ranks are whole numbers"),
        ({"r": 5}, r"has A \(4, 80\) and B \(48, 4\); by adapter_config.json its rank is 5"),
        ({"r": True}, "r = True"),
        ({"target_modules": ["k_proj"]}, "changes model.*, which target_modules of adapter_config.json does not name"),
    ],
)
def test_what_would_compute_something_else_is_refused_by_its_key(lora: Path, values: dict[str, Any], said: str) -> None:
    change_config(lora, **values)
    with pytest.raises(SourceError, match=said):
        open_adapter(lora)


def without(name: str) -> Any:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(f"{Q}.lora_A.weight"), "has no lora_A of model.layers.0.self_attn.q_proj"),
        (lambda _: {}, "has no tensors"),
        (lambda found: {**found, "lm_head.weight": torch.zeros(2)}, "has 'lm_head.weight', which is no half"),
        (lambda found: {**found, f"\x1b[2J{Q}.lora_A.weight": torch.zeros(2)}, r"has '\\x1b\[2Jbase_model"),
        (lambda found: {**found, f"{Q}.lora_magnitude_vector": torch.ones(48)}, "does not say use_dora"),
        (lambda found: {**found, f"{Q}.lora_magnitude_vector.weight": torch.ones(48)}, "which is no half"),
        (lambda found: {**found, f"{Q}.lora_A.weight": torch.ones(4, 48, 1)}, r"has A \(4, 48, 1\)"),
        (lambda found: {**found, f"{Q}.lora_A.weight": torch.full((4, 48), torch.nan)}, "not hold finite numbers"),
        (lambda found: {**found, f"{Q}.lora_A.weight": torch.ones(4, 48).int()}, "not hold finite numbers"),
    ],
)
def test_tensors_that_are_no_whole_pairs_are_named(lora: Path, change: Any, said: str) -> None:
    change_tensors(lora, change)
    with pytest.raises(SourceError, match=said):
        open_adapter(lora)


def test_the_lengths_of_dora_are_read_and_checked(tmp_path: Path) -> None:
    save_lora(random_model(config_of("llama")), tmp_path / "lora", use_dora=True)
    found = open_adapter(tmp_path / "lora")
    assert found.dora and found.pairs[0].load_magnitude().shape == found.pairs[0].shape[:1]
    for value, said in (
        (torch.ones(47), r"has lora_magnitude_vector \(47,\) and B \(48, 4\)"),
        (torch.full((48,), torch.nan), "not hold finite numbers"),
    ):
        change_tensors(tmp_path / "lora", lambda found, value=value: {**found, f"{Q}.lora_magnitude_vector": value})
        with pytest.raises(SourceError, match=said):
            open_adapter(tmp_path / "lora")


def test_an_adapter_whose_b_is_zero_everywhere_was_not_trained(tmp_path: Path) -> None:
    save_lora(random_model(config_of("llama")), tmp_path / "lora", b=0.0)
    with pytest.raises(SourceError, match=r"changes nothing .*; it was not trained"):
        open_adapter(tmp_path / "lora")
    change_tensors(tmp_path / "lora", lambda found: {**found, f"{Q}.lora_B.weight": torch.ones(48, 4)})
    assert len(open_adapter(tmp_path / "lora").pairs) == 28


def test_a_damaged_or_missing_file_is_named(lora: Path) -> None:
    weights = lora / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(SourceError, match=r"adapter_model\.safetensors is damaged"):
        open_adapter(lora)
    weights.unlink()
    with pytest.raises(SourceError, match=r"there is no adapter_model\.safetensors"):
        open_adapter(lora)
    weights.write_bytes(whole)
    (lora / "adapter_config.json").write_text(json.dumps([]))
    with pytest.raises(SourceError, match=r"adapter_config\.json holds a JSON list"):
        open_adapter(lora)
    with pytest.raises(SourceError, match=r"no adapter in .*nowhere"):
        open_adapter(lora / "nowhere")
