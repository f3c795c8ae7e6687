import json

import pytest

from sottovoce.errors import InputError
from sottovoce.streaming.options import SETTINGS, StreamOptions
from sottovoce_targets import CHAT_GATE_LIMITS, Chat, list_targets, load_target, parse_target

GOOD = """
description = "A machine"
arch = "aarch64"
os = "linux"
cpu = "Cortex-A53"
cores = 4
memory_mb = 512
instructions = ["asimd"]
engine = "onnxruntime"
format = "onnx"
precision = "int8"
threads = 4
[gate]
max_wer_increase = 0.02
[stream]
step = 1
[chat]
precision = "int8"
context = 2048
[chat.gate]
max_kl = 0.3
"""


def test_the_targets_of_the_documentation_are_there() -> None:
    assert {"linux-x86-64", "raspberry-pi-5", "raspberry-pi-4", "android-arm64"} <= set(list_targets())


@pytest.mark.parametrize("name", list_targets())
def test_every_target_loads_and_becomes_json(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert json.loads(json.dumps(target.to_json())) == target.to_json()


def test_a_pi_5_has_the_dot_product_and_half_precision_and_a_pi_4_has_neither() -> None:
    assert {"asimddp", "asimdhp"} <= set(load_target("raspberry-pi-5").instructions)
    assert not {"asimddp", "asimdhp"} & set(load_target("raspberry-pi-4").instructions)


def test_an_unknown_target_is_named_with_the_closest_ones() -> None:
    with pytest.raises(InputError, match=r"'raspberry-pi5'; did you mean raspberry-pi-5"):
        load_target("raspberry-pi5")


@pytest.mark.parametrize("name", ["zzz", "../linux-x86-64", ""])
def test_a_name_like_no_other_gets_the_list(name: str) -> None:
    with pytest.raises(InputError, match="linux-x86-64"):
        load_target(name)


def test_a_target_can_be_written_with_the_facts_alone() -> None:
    target = parse_target("mine", GOOD.partition("[gate]")[0])
    assert (target.cores, dict(target.gate), dict(target.stream), target.notes) == (4, {}, {}, ())


def test_a_target_can_have_limits_and_settings_of_its_own() -> None:
    target = parse_target("mine", GOOD)
    assert (dict(target.gate), dict(target.stream)) == ({"max_wer_increase": 0.02}, {"step": 1.0})


def test_how_language_models_run_there_is_stated_or_has_defaults() -> None:
    chat = parse_target("mine", GOOD).chat
    assert (chat.engine, chat.format, chat.precision, chat.context) == ("llama.cpp", "gguf", "int8", 2048)
    assert dict(chat.gate) == {"max_kl": 0.3}
    assert parse_target("mine", GOOD.partition("[chat]")[0]).chat == Chat()
    assert parse_target("mine", GOOD).to_json()["chat"]["gate"] == {"max_kl": 0.3}


@pytest.mark.parametrize("name", list_targets())
def test_every_target_says_how_language_models_run_there(name: str) -> None:
    chat = load_target(name).chat
    assert (chat.engine, chat.format) in (("llama.cpp", "gguf"), ("onnxruntime", "onnx"))
    assert set(chat.gate) == set(CHAT_GATE_LIMITS) and 1024 <= chat.context <= 32_768


def test_streaming_settings_are_stated_where_they_were_measured_and_nowhere_else() -> None:
    """The runtime's defaults were chosen on a Linux PC: whoever changes them there changes them here."""
    defaults = {name: getattr(StreamOptions(), name) for name in SETTINGS}
    for name in list_targets():
        target = load_target(name)
        measured = dict(target.stream) == defaults and name == "linux-x86-64"
        said = any("Streaming settings were not measured here" in note for note in target.notes)
        assert measured or (said and not target.stream), name


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("cores = 4", "cores = 4\nspeed = 9", "unknown key 'speed'"),
        ("cores = 4\n", "", "key 'cores' is missing"),
        ("cores = 4", "cores = 0", "cores is 0"),
        ("cores = 4", "cores = true", "cores is True"),
        ("memory_mb = 512", 'memory_mb = "512"', "memory_mb is '512'"),
        ('arch = "aarch64"', 'arch = "arm"', "arch is 'arm'"),
        ('precision = "int8"', 'precision = "int3"', "precision is 'int3'"),
        ('instructions = ["asimd"]', "instructions = [1]", "instructions is"),
        ('cpu = "Cortex-A53"', 'cpu = ""', "cpu is ''"),
        ("max_wer_increase = 0.02", "max_wer = 0.02", "unknown gate limit 'max_wer'"),
        ("max_wer_increase = 0.02", 'max_wer_increase = "2 %"', "gate limit max_wer_increase"),
        ("threads = 4", "threads = ", "not valid TOML"),
        ("cores = 4", 'cores = 4\nstream = "fast"', "not valid TOML"),
        ("step = 1", "stride = 1", "stream: no stream setting 'stride'; there are step, hold_back"),
        ("step = 1", 'language = "de"', "stream: no stream setting 'language'"),
        ("step = 1", "step = 0.01", "stream: step = 0.01; 0.05 to 10 is possible"),
        ("step = 1", "window = nan", "stream: window = nan"),
        ("context = 2048", "context = 0", "context is 0"),
        ("context = 2048", "contest = 2048", "unknown key of chat 'contest'"),
        ('precision = "int8"\ncontext', 'precision = "q4_k_m"\ncontext', "precision is 'q4_k_m'"),
        ("context = 2048", 'format = "coreml"', "format is 'coreml'"),
        ("context = 2048", 'engine = ""', "engine is ''"),
        ("max_kl = 0.3", "max_wer_increase = 0.3", "unknown gate limit 'max_wer_increase'; known are max_kl"),
        ("max_kl = 0.3", "max_kl = true", "gate limit max_kl is True"),
    ],
)
def test_a_fault_in_a_target_is_named(before: str, after: str, names: str) -> None:
    assert before in GOOD
    with pytest.raises(InputError) as caught:
        parse_target("mine", GOOD.replace(before, after))
    assert str(caught.value).startswith("target mine: ") and names in str(caught.value)
