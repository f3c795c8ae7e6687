"""Every decoder-only family, against what transformers builds from the same config."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sottovoce_compiler.families import FAMILIES, SPEECH, UnsupportedModelError, language_model
from sottovoce_compiler.sources import SourceError, resolve
from sottovoce_compiler.sources.checkpoint import Checkpoint

from ..causal_case import LLAMA3, LONGROPE, MODELS, config_of, random_model, save


def opened(name: str, folder: Path, **changes: Any) -> Checkpoint:
    """The checkpoint of one of `MODELS`, whose config.json was changed after it was saved (None: key removed)."""
    file = save(random_model(config_of(name)), folder) / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return resolve(str(folder))


@pytest.mark.parametrize("name", MODELS)
def test_angles_are_transformers_own(name: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    spec = language_model(opened(name, tmp_path)).spec
    rotary = AutoModel.from_config(config_of(name)).rotary_emb
    ropes = {"inv_freq": (spec.rope, spec.rope.short_factors or spec.rope.factors)}
    if spec.local_rope is not None:
        ropes = {
            "full_attention_inv_freq": (spec.rope, spec.rope.factors),
            "sliding_attention_inv_freq": (spec.local_rope, None),
        }
    for key, (rope, factors) in ropes.items():
        plain = rope.base ** (-2 * np.arange(rope.width // 2) / rope.width) / rope.linear_factor
        np.testing.assert_allclose(plain / np.array(factors or 1.0), getattr(rotary, key).numpy(), rtol=1e-5)
    if "longrope" in name:
        assert spec.rope.attention_factor == pytest.approx(rotary.attention_scaling)


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_of_the_source_is_read_under_its_role(name: str, tmp_path: Path) -> None:
    checkpoint = opened(name, tmp_path)
    model = language_model(checkpoint)
    spec = model.spec
    read = sum(model.load(role, layer).size for layer in range(spec.layers) for role in spec.layer_roles())
    read += sum(model.load(role, None).size for role in ("embed", "final_norm", *(() if spec.tied else ("head",))))
    stored = [name for name in checkpoint.tensors.names() if not (spec.tied and name == "lm_head.weight")]
    assert read == sum(int(np.prod(checkpoint.tensors.shape(name))) for name in stored)
    assert {model.names(role, 1) for role in spec.layer_roles()} == {one for one in stored if ".layers.1." in one}


def old_style(name: str) -> dict[str, Any]:
    """How transformers 4 spells the rotation of one of `MODELS`."""
    return {
        "llama 3": {"rope_theta": 10_000.0, "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}},
        "llama linear": {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        "qwen2 untied": {"rope_theta": 1_000_000.0, "rope_scaling": None},
        "gemma3": {
            **{"rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0},
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        "phi3 partial, longrope": {
            **{"rope_theta": 10_000.0, "partial_rotary_factor": 0.75},
            "rope_scaling": {
                "type": "su",
                "short_factor": LONGROPE["short_factor"],
                "long_factor": LONGROPE["long_factor"],
            },
        },
    }[name]


@pytest.mark.parametrize("name", ["llama 3", "llama linear", "qwen2 untied", "gemma3", "phi3 partial, longrope"])
def test_configs_of_transformers_4_say_the_same_as_those_of_5(name: str, tmp_path: Path) -> None:
    new = language_model(opened(name, tmp_path / "new")).spec
    old = language_model(opened(name, tmp_path / "old", rope_parameters=None, **old_style(name))).spec
    assert old == new


def test_gemma_without_layer_types_sees_all_in_every_sixth_layer(tmp_path: Path) -> None:
    checkpoint = opened("gemma3, usual layers", tmp_path, layer_types=None, sliding_window_pattern=None)
    assert language_model(checkpoint).spec.sliding_layers == (True,) * 5 + (False, True)


def test_of_a_multimodal_gemma_the_language_model_is_read_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import load_file, save_file

    alone = language_model(opened("gemma3", tmp_path / "alone"))
    for folder, prefix, vision in (("old", "language_model.", "vision_tower.x"), ("new", "", "model.vision_tower.x")):
        save(random_model(config_of("gemma3")), tmp_path / folder)
        weights = load_file(tmp_path / folder / "model.safetensors")
        renamed = {
            (prefix + name if prefix else name.replace("model.", "model.language_model.", 1)): array
            for name, array in weights.items()
        }
        save_file({**renamed, vision: np.zeros(3, np.float32)}, tmp_path / folder / "model.safetensors")
        text = json.loads((tmp_path / folder / "config.json").read_text())
        whole = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 3}}
        (tmp_path / folder / "config.json").write_text(json.dumps(whole))
        model = language_model(resolve(str(tmp_path / folder)))
        assert model.spec == alone.spec
        np.testing.assert_array_equal(model.load("q", 2), alone.load("q", 2))
        assert f"{folder}: the vision weights are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"attention_bias": True}, "has attention_bias = True; that is not supported"),
        ("llama", {"mlp_bias": True}, "mlp_bias = True"),
        ("llama", {"hidden_act": "gelu"}, "has hidden_act = 'gelu'; only 'silu' is supported"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config = .*gptq"),
        ("llama", {"num_local_experts": 8}, "num_local_experts = 8"),
        ("llama", {"sliding_window": 16}, "sliding_window = 16"),
        ("llama", {"num_key_value_heads": 4}, "num_attention_heads = 6 does not divide by num_key_value_heads = 4"),
        ("llama", {"hidden_size": 50, "head_dim": None}, "hidden_size = 50 does not divide by num_attention_heads = 6"),
        ("llama", {"hidden_size": -1}, "hidden_size = -1; a positive whole number is needed"),
        ("llama", {"rms_norm_eps": "x"}, "rms_norm_eps = 'x'; a positive number is needed"),
        ("llama", {"tie_word_embeddings": 1}, "tie_word_embeddings = 1; true or false is needed"),
        (
            "llama",
            {"intermediate_size": 81},
            r"gate_proj.weight has shape \(80, 48\), by config.json it has \(81, 48\)",
        ),
        ("llama", {"num_hidden_layers": 3}, "the weights have model.layers.3.* which a llama of this config.json"),
        ("qwen3", {"model_type": "llama", "architectures": None}, "k_norm.weight, which a llama of this"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}},
            "rope_type = 'yarn'; default, linear, llama3 and longrope are supported",
        ),
        (
            "llama",
            {"rope_theta": 5.0},
            "rope_theta = 5.0; rope_parameters says 10000.0",
        ),
        ("llama 3", {"rope_parameters": {**LLAMA3, "factor": None}}, "factor = None; a positive number is needed"),
        ("qwen2", {"use_sliding_window": True, "layer_types": ["full_attention"]}, "num_hidden_layers is 4"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 4}, "a list of full_attention and sliding_attention"),
        ("llama", {"layer_types": ["sliding_attention"] * 4}, "layer_types = .*; that is not supported"),
        ("smollm3", {"no_rope_layers": [1, 1]}, "no_rope_layers = .1, 1.; a list of 5 zeros and ones is needed"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        (
            "phi3 partial, longrope",
            {"rope_parameters": {**LONGROPE, "long_factor": [1.0], "original_max_position_embeddings": 256}},
            "long_factor = .1.0.; 3 positive numbers are needed",
        ),
    ],
)
def test_what_contradicts_or_is_not_supported_is_refused_by_name(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    checkpoint = opened(name, tmp_path / "tiny", **changes)
    with pytest.raises(UnsupportedModelError, match=f"tiny: .*{message}"):
        language_model(checkpoint)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no tensor 'model\.norm\.weight'|no tensor 'lm_head\.weight'"):
        language_model(opened("llama tied, no grouping", tmp_path, tie_word_embeddings=False))


def test_weights_that_are_not_floating_point_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save(random_model(config_of("llama")), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"].astype(np.int8)
    save_file(weights, tmp_path / "model.safetensors")
    model = language_model(resolve(str(tmp_path)))
    with pytest.raises(UnsupportedModelError, match=r"up_proj\.weight holds int8, not floating point"):
        model.load("up", 0)


def test_unknown_families_are_refused_by_name_and_speech_is_no_language_model(tmp_path: Path) -> None:
    checkpoint = opened("llama", tmp_path, model_type="falcon")
    with pytest.raises(UnsupportedModelError, match=r"model_type 'falcon' is not supported; supported: gemma3, .*phi3"):
        language_model(checkpoint)
    whisper = opened("llama", tmp_path / "speech", model_type="whisper")
    with pytest.raises(UnsupportedModelError, match="speech: whisper is not a language model; those are gemma3,"):
        language_model(whisper)
    assert {MODELS[name][0] for name in MODELS} | SPEECH | {"gemma3"} == set(FAMILIES)


def test_a_model_made_for_embeddings_says_how_it_pools(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir(parents=True)
    (tmp_path / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 48, "pooling_mode_lasttoken": True, "pooling_mode_cls_token": False})
    )
    checkpoint = opened("qwen3", tmp_path)
    assert language_model(checkpoint).spec.pooling == "last"
    assert checkpoint.sha256["1_Pooling/config.json"] != checkpoint.sha256["config.json"]
