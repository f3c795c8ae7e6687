import json
from pathlib import Path

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
usable_mb = 400
instructions = ["asimd"]
formats = ["onnx", "litert"]
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
    pis = {"raspberry-pi-5", "raspberry-pi-4", "raspberry-pi-zero-2w"}
    assert pis | {"linux-x86-64", "linux-arm64", "android-arm64", "browser"} <= set(list_targets())


@pytest.mark.parametrize("name", list_targets())
def test_every_target_loads_and_becomes_json(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert json.loads(json.dumps(target.to_json())) == target.to_json()


@pytest.mark.parametrize("name", list_targets())
def test_every_target_leaves_memory_to_the_system_and_names_its_sources(name: str) -> None:
    target = load_target(name)
    assert target.usable_mb < target.memory_mb
    assert target.sources and all(source.startswith("https://") for source in target.sources)


def test_a_board_with_more_memory_has_more_for_programs() -> None:
    target = parse_target("mine", GOOD).with_memory(2048)
    assert (target.memory_mb, target.usable_mb) == (2048, 1936)
    with pytest.raises(InputError, match="memory of 100 MB: on mine the system takes 112 MB"):
        target.with_memory(100)


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


def test_a_users_own_file_is_a_target_named_after_it(tmp_path: Path) -> None:
    (tmp_path / "my-board.toml").write_text(GOOD)
    target = load_target(str(tmp_path / "my-board.toml"))
    assert (target.name, target.usable_mb, target.formats) == ("my-board", 400, ("onnx", "litert"))


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), (b"\xff", "not UTF-8 text")])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "my-board.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=f"target file .*my-board.toml: {said}"):
        load_target(str(file))


def test_a_speech_models_parts_can_differ_in_precision() -> None:
    assert parse_target("mine", GOOD).precision == "int8"
    parts = '{head = "int4", encoder = "int8", decoder = "int4"}'
    text = GOOD.replace('precision = "int8"\nthreads', f"precision = {parts}\nthreads")
    assert parse_target("mine", text).precision == "encoder int8, decoder int4, head int4"


def test_a_target_can_have_limits_and_settings_of_its_own() -> None:
    target = parse_target("mine", GOOD)
    assert (dict(target.gate), dict(target.stream)) == ({"max_wer_increase": 0.02}, {"step": 1.0})


def test_how_language_models_run_there_is_stated_or_has_defaults() -> None:
    chat = parse_target("mine", GOOD).chat
    assert (chat.formats, chat.precision, chat.context) == (("gguf", "onnx"), "int8", 2048)
    assert dict(chat.gate) == {"max_kl": 0.3}
    assert parse_target("mine", GOOD.partition("[chat]")[0]).chat == Chat()
    assert parse_target("mine", GOOD).to_json()["chat"]["gate"] == {"max_kl": 0.3}


@pytest.mark.parametrize("name", list_targets())
def test_every_target_says_how_language_models_run_there(name: str) -> None:
    chat = load_target(name).chat
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
        ("context = 2048", 'formats = ["q4"]', "formats is ['q4']; expected some of onnx, gguf, coreml, litert"),
        ("context = 2048", "formats = []", "formats is []"),
        ('["onnx", "litert"]', '["onnx", "onnx"]', "formats is ['onnx', 'onnx']"),
        ('["onnx", "litert"]', '"onnx"', "formats is 'onnx'; expected a list of texts"),
        ("usable_mb = 400", "usable_mb = 600", "usable_mb is 600, more than the memory_mb of 512"),
        ("usable_mb = 400\n", "", "key 'usable_mb' is missing"),
        (
            'precision = "int8"\nthreads',
            'precision = {encoder = "int8", decoder = "int4"}\nthreads',
            "of the head is missing",
        ),
        (
            'precision = "int8"\nthreads',
            'precision = {ears = "int8"}\nthreads',
            "unknown part in precision 'ears'; known are",
        ),
        ("threads = 4", 'threads = 4\nsources = "www"', "sources is 'www'"),
        ("max_kl = 0.3", "max_wer_increase = 0.3", "unknown gate limit 'max_wer_increase'; known are max_kl"),
        ("max_kl = 0.3", "max_kl = true", "gate limit max_kl is True"),
    ],
)
def test_a_fault_in_a_target_is_named(before: str, after: str, names: str) -> None:
    assert before in GOOD
    with pytest.raises(InputError) as caught:
        parse_target("mine", GOOD.replace(before, after))
    assert str(caught.value).startswith("target mine: ") and names in str(caught.value)
