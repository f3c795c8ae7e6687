"""`sottovoce doctor`: what is here, what is missing with its pip command, and whether a bundle fits."""

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llama_case import needs_llama
from tiny_gguf import tiny_gguf

from sottovoce.cli import doctor, main
from sottovoce.errors import BundleError

Capture = pytest.CaptureFixture[str]
# 2 x 10 x 4 x 64 values a token: 20.48 MB for 2000 tokens of two bytes.
SHAPE = {"layers": 10, "kv_heads": 4, "head_width": 64, "context": 2000}


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "version", missing)
    monkeypatch.setattr(doctor, "_llama_version", lambda: None)


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A bundle of 100 MB that runs here; its fields can be changed."""
    import sottovoce.chat.loading  # noqa: F401  # which the real `sottovoce.bundle` is for

    opened = SimpleNamespace(size=100_000_000, check_runtime=lambda: [], path=tmp_path / "b.svb")
    opened.manifest = SimpleNamespace(task="transcribe", model=dict(SHAPE), engine=SimpleNamespace(name="llama.cpp"))
    opened.path.touch()
    monkeypatch.setitem(sys.modules, "sottovoce.bundle", SimpleNamespace(open_bundle=lambda path: opened))
    monkeypatch.setattr(doctor, "reported_bytes", lambda: 500_000_000)
    return opened


def as_json(capsys: Capture, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_what_is_installed_is_listed_with_its_version(capsys: Capture) -> None:
    code, data = as_json(capsys)
    assert code == 0 and data["fits"] is None and data["engines"]["onnxruntime"]


@pytest.mark.usefixtures("nothing_installed")
def test_what_is_missing_has_the_command_that_adds_it(capsys: Capture) -> None:
    _, data = as_json(capsys)
    assert {part["name"]: part["install"] for part in data["missing"]} == {
        "onnxruntime": "pip install onnxruntime",
        "llama.cpp": "pip install 'sottovoce[chat-wheel]'",
        "chat-wheel": "pip install 'sottovoce[chat-wheel]'",
        "chat": "pip install 'sottovoce[chat]'",
        "chat-onnx": "pip install 'sottovoce[chat-onnx]'",
        "audio": "pip install 'sottovoce[audio]'",
        "mic": "pip install 'sottovoce[mic]'",
        "compiler": "pip install sottovoce-compiler",
    }
    assert main(["doctor"]) == 0
    assert "missing: pip install 'sottovoce[audio]'" in capsys.readouterr().out


@pytest.mark.parametrize(("here", "other"), [("xllamacpp", "chat"), ("llama-cpp-python", "chat-wheel")])
def test_the_other_way_to_llama_cpp_is_not_missing_where_one_is_there(
    here: str, other: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def version(package: str) -> str:
        if package not in (here, "jinja2", "llguidance"):
            raise PackageNotFoundError(package)
        return "9.8"

    monkeypatch.setattr(doctor, "version", version)
    _, data = as_json(capsys)
    missing = {part["name"] for part in data["missing"]}
    assert not missing & {"chat", "chat-wheel"} and {"chat-onnx", "audio"} <= missing and data["extras"][other] is None
    assert main(["doctor"]) == 0
    assert f"{other:<11} not needed" in capsys.readouterr().out


def test_an_extra_of_which_a_part_is_missing_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def version(package: str) -> str:
        if package == "llguidance":
            raise PackageNotFoundError(package)
        return "9.8"

    monkeypatch.setattr(doctor, "version", version)
    _, data = as_json(capsys)
    assert {part["name"] for part in data["missing"]} == {"chat", "chat-wheel", "chat-onnx"}


@pytest.mark.parametrize(("engine", "cache"), [("llama.cpp", 20), ("onnxruntime", 41)])
def test_a_chat_bundle_needs_memory_for_its_context_too(
    engine: str, cache: int, bundle: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    bundle.manifest.task, bundle.manifest.engine.name = "chat", engine
    assert as_json(capsys, str(bundle.path))[1]["fits"] is True
    monkeypatch.setattr(doctor, "reported_bytes", lambda: 110_000_000)
    code, data = as_json(capsys, str(bundle.path))
    said = f"100 MB of weights and {cache} MB of memory for 2000 tokens, and 110 MB of memory are free"
    assert code == 1 and data["reasons"] == [f"{bundle.path}: {said}"]
    bundle.manifest.task = "transcribe"
    assert as_json(capsys, str(bundle.path))[1]["fits"] is True


@pytest.mark.parametrize("value", [None, 0, "8", True, 1 << 40])
def test_a_chat_bundle_whose_numbers_are_absurd_cannot_run(
    value: object, bundle: SimpleNamespace, capsys: Capture
) -> None:
    bundle.manifest.task = "chat"
    bundle.manifest.model["layers"] = value
    code, data = as_json(capsys, str(bundle.path))
    assert code == 1 and "layers" in data["reasons"][0]


@needs_llama
def test_a_gguf_file_is_judged_by_its_weights_and_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    code, data = as_json(capsys, str(path))
    assert code == 0 and "plain GGUF file" in data["notes"][0]
    monkeypatch.setattr(doctor, "reported_bytes", lambda: 1_000_000)
    code, data = as_json(capsys, str(path))
    assert code == 1 and "memory for 256 tokens" in data["reasons"][0]
    path.write_bytes(path.read_bytes()[:100])
    assert as_json(capsys, str(path))[0] == 1


def test_a_bundle_that_fits_is_exit_code_0(bundle: SimpleNamespace, capsys: Capture) -> None:
    bundle.check_runtime = lambda: ["made for another machine"]
    assert main(["doctor", str(bundle.path)]) == 0
    out = capsys.readouterr().out
    assert "fits this machine" in out and "made for another machine" in out


def test_a_bundle_larger_than_the_memory_does_not_fit(bundle: SimpleNamespace, capsys: Capture) -> None:
    bundle.size = 600_000_000
    code, data = as_json(capsys, str(bundle.path))
    assert code == 1 and data["fits"] is False
    assert data["reasons"] == [f"{bundle.path}: 600 MB of weights, and 500 MB of memory are free"]


def test_a_bundle_that_this_machine_cannot_run_says_why(bundle: SimpleNamespace, capsys: Capture) -> None:
    def refuse() -> list[str]:
        raise BundleError("needs a processor with avx512f")

    bundle.check_runtime = refuse
    assert main(["doctor", str(bundle.path)]) == 1
    assert "cannot run here\n            needs a processor with avx512f" in capsys.readouterr().out


def test_memory_that_cannot_be_asked_for_is_a_note(
    bundle: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(doctor, "reported_bytes", lambda: None)
    code, data = as_json(capsys, str(bundle.path))
    assert code == 0 and data["fits"] is True and "memory" in data["notes"][0]


def test_a_path_with_nothing_there_is_exit_code_2(capsys: Capture) -> None:
    assert main(["doctor", "gone.svb"]) == 2
    assert capsys.readouterr().err == "sottovoce: error: gone.svb: no such bundle\n"


def test_some_memory_is_available() -> None:
    available = doctor.reported_bytes()
    assert available is None or available > 1_000_000
