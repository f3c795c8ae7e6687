"""The built wheel in an environment of numpy and onnxruntime alone, on a real bundle."""

import json
import re
import time
import tomllib
from pathlib import Path

import pytest
from device_case import OLDEST, ROOT, Device

HELP_SECONDS = 0.2
TRIES = 15  # the fastest counts: a busy machine slows some, not all
SPOKEN = "ever tried"


@pytest.fixture(scope="session")
def wav() -> Path:
    """A short recording of "Ever tried."."""
    from sottovoce_compiler.report.builtin import builtin_set

    (file,) = (clip.file for clip in builtin_set().clips if clip.name.startswith("beckett-00.00"))
    return file


def test_nothing_is_installed_beyond_what_onnxruntime_itself_brings(device: Device) -> None:
    listed = device.python(
        "import json; from importlib.metadata import distributions;"
        "print(json.dumps({d.metadata['Name']: d.requires or [] for d in distributions()}))"
    )
    requires = {name.lower(): wanted for name, wanted in json.loads(listed).items()}
    closure, waiting = set(), ["onnxruntime"]
    while waiting:
        name = waiting.pop()
        if name in requires and name not in closure:
            closure.add(name)
            waiting += [re.split(r"[^A-Za-z0-9._-]", wanted)[0].lower() for wanted in requires[name]]
    assert "numpy" in closure
    assert set(requires) == closure | {"sottovoce"}


def test_import_brings_in_nothing_of_the_host_and_not_even_numpy(device: Device) -> None:
    code = "import sys, sottovoce; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = device.python(code)
    assert "'sottovoce'" in loaded
    for name in ("torch", "transformers", "onnx", "numpy", "onnxruntime", "sottovoce_compiler"):
        assert f"'{name}'" not in loaded


@pytest.mark.weights
def test_transcribing_loads_no_module_of_the_host(device: Device, tiny_bundle: Path, wav: Path) -> None:
    code = f"""
import sys, sottovoce
segments, info = sottovoce.Transcriber({str(tiny_bundle)!r}).transcribe({str(wav)!r}, word_timestamps=True)
print("".join(segment.text for segment in segments))
host = {{"torch", "transformers", "onnx", "soundfile", "sottovoce_compiler", "tokenizers"}}
assert not host & set(sys.modules), host & set(sys.modules)
"""
    assert SPOKEN in device.python(code).lower()


def test_help_lists_the_devices_commands_in_a_fifth_of_a_second(device: Device) -> None:
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        done = device.run("sottovoce", "--help")
        seconds.append(time.perf_counter() - started)
    assert done.returncode == 0 and "transcribe" in done.stdout and "compile" not in done.stdout
    assert min(seconds) < HELP_SECONDS


@pytest.mark.weights
@pytest.mark.parametrize("which", ["device", "oldest_device"])
def test_a_real_bundle_verifies_and_gives_the_words(
    which: str, request: pytest.FixtureRequest, tiny_bundle: Path, wav: Path
) -> None:
    device: Device = request.getfixturevalue(which)
    verified = device.run("sottovoce", "verify", tiny_bundle, "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["ok"] is True
    said = device.run("sottovoce", "transcribe", tiny_bundle, wav)
    assert said.returncode == 0, said.stderr
    assert SPOKEN in said.stdout.lower()


@pytest.mark.weights
def test_transcribing_tells_nobody_and_leaves_nothing_in_the_home(
    device: Device, tiny_bundle: Path, wav: Path, tmp_path: Path
) -> None:
    # Telemetry of onnxruntime begins with a number for the user, kept under the home.
    done = device.run("sottovoce", "transcribe", tiny_bundle, wav, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.weights
def test_words_as_srt_are_numbered_cues_with_times_in_order(device: Device, tiny_bundle: Path, wav: Path) -> None:
    done = device.run("sottovoce", "transcribe", tiny_bundle, wav, "--words", "--format", "srt")
    assert done.returncode == 0, done.stderr
    times = re.findall(r"(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})", done.stdout)
    assert done.stdout.startswith("1\n00:00:0") and times
    assert times == sorted(times) and all(start < end for start, end in times)


@pytest.mark.weights
@pytest.mark.parametrize(("name", "head"), [("talk.mp3", b"ID3\4\0"), ("talk.flac", b"fLaC")])
def test_a_format_that_needs_the_extra_names_it(device: Device, tiny_bundle: Path, name: str, head: bytes) -> None:
    file = device.folder / name
    file.write_bytes(head + bytes(1000))
    done = device.run("sottovoce", "transcribe", tiny_bundle, file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'sottovoce[audio]'" in done.stderr and len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize("command", ["compile", "adapter", "evaluate", "targets", "demo"])
def test_a_command_of_the_host_says_what_to_install(device: Device, command: str) -> None:
    done = device.run("sottovoce", command, "whatever")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install sottovoce-compiler" in done.stderr and len(done.stderr.splitlines()) == 1


def test_doctor_finds_the_engine_and_names_what_is_missing(device: Device) -> None:
    done = device.run("sottovoce", "doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and "onnxruntime" in json.dumps(found["engines"])
    assert "sottovoce[audio]" in json.dumps(found["missing"])


def test_what_is_tested_as_the_oldest_is_what_the_wheel_and_the_bundles_allow() -> None:
    project = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text())["project"]
    for requirement in OLDEST:
        name, _, version = requirement.partition("==")
        least = next(one.partition(">=")[2] for one in project["dependencies"] if one.startswith(name))
        assert version.startswith(f"{least}.")
    from sottovoce_compiler.lowerings.onnx.speech_lowering import OLDEST_ENGINE

    assert OLDEST[0].removeprefix("onnxruntime==").startswith(f"{OLDEST_ENGINE}.")
