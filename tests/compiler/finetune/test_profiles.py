import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.families import FAMILIES, SPEECH
from sottovoce_compiler.finetune.profiles import PROFILES, chosen_modules, explain, profile_of
from sottovoce_kernels import __path__ as kernels


def test_every_language_model_has_a_profile() -> None:
    assert set(FAMILIES) - SPEECH <= PROFILES.keys() <= set(FAMILIES)


def test_modules_are_chosen_by_role_by_name_or_all() -> None:
    llama = profile_of("llama")
    every = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert llama.targets() == llama.targets([]) == llama.targets(["all-linear"]) == every
    assert llama.targets(["v", "q_proj", "q"]) == ("q_proj", "v_proj")
    assert profile_of("phi3").targets(["q", "v", "down"]) == ("qkv_proj", "down_proj")


@pytest.mark.parametrize("name", ["lm_head", "Q", "", "proj", "decoder.q", "self_attn.", ".q"])
def test_an_unknown_module_is_named_with_those_that_are_known(name: str) -> None:
    with pytest.raises(
        InputError, match=f"no target module '{name}'; these are known: q_proj, k_proj.* q, k, v, o, gate"
    ):
        profile_of("qwen2").targets(["q", name])


def test_a_family_without_a_profile_is_named() -> None:
    with pytest.raises(InputError, match=r"bert cannot be fine-tuned here; .*llama.* can"):
        profile_of("bert")


def test_matrices_of_one_place_are_chosen_together_or_by_role() -> None:
    whisper = profile_of("whisper")
    assert whisper.targets(["encoder_attn.q", "decoder", "up"]) == ("fc1", "decoder", "encoder_attn.q_proj")
    names = [
        "model.encoder.layers.0.self_attn.q_proj",
        "model.decoder.layers.0.self_attn.q_proj",
        "model.decoder.layers.0.encoder_attn.q_proj",
        "model.decoder.layers.0.encoder_attn.v_proj",
        "model.decoder.layers.0.fc1",
    ]
    assert chosen_modules(names, whisper.targets(["encoder_attn"])) == names[2:4]
    assert chosen_modules(names, whisper.targets(["decoder.self_attn.q", "v"])) == [names[1], names[3]]
    assert chosen_modules(names, whisper.targets(["decoder"])) == names[1:]
    assert chosen_modules(names, whisper.targets(["encoder.q_proj"])) == names[:1]


def test_modules_of_a_model_are_found_by_their_last_part() -> None:
    names = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"]
    assert chosen_modules(names, ("q_proj",)) == [names[0], names[2]]


@pytest.mark.parametrize("family", PROFILES)
def test_what_is_explained_are_operations_that_there_are(family: str) -> None:
    from pathlib import Path

    there = {folder.name for folder in Path(next(iter(kernels))).iterdir() if (folder / "op.py").is_file()}
    assert {operation.name for operation in profile_of(family).operations} <= there
    lines = explain(family).splitlines()
    assert lines[0].startswith(f"{family}: adapters on ") and len(lines) == 1 + len(profile_of(family).operations)
