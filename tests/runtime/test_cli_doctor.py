"""`sottovoce doctor`: what is here, what is missing with its pip command, and whether a bundle fits."""

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sottovoce.cli import doctor, main
from sottovoce.errors import BundleError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "version", missing)


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A bundle of 100 MB that runs here; its fields can be changed."""
    opened = SimpleNamespace(size=100_000_000, check_runtime=lambda: [], path=tmp_path / "b.svb")
    opened.path.touch()
    monkeypatch.setitem(sys.modules, "sottovoce.bundle", SimpleNamespace(open_bundle=lambda path: opened))
    monkeypatch.setattr(doctor, "available_memory", lambda: 500_000_000)
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
        "audio": "pip install 'sottovoce[audio]'",
        "mic": "pip install 'sottovoce[mic]'",
        "compiler": "pip install sottovoce-compiler",
    }
    assert main(["doctor"]) == 0
    assert "missing: pip install 'sottovoce[audio]'" in capsys.readouterr().out


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
    monkeypatch.setattr(doctor, "available_memory", lambda: None)
    code, data = as_json(capsys, str(bundle.path))
    assert code == 0 and data["fits"] is True and "memory" in data["notes"][0]


def test_a_path_with_nothing_there_is_exit_code_2(capsys: Capture) -> None:
    assert main(["doctor", "gone.svb"]) == 2
    assert capsys.readouterr().err == "sottovoce: error: gone.svb: no such bundle\n"


def test_a_control_groups_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text("1000\n")
    (tmp_path / "current").write_text("400\n")
    assert doctor._cgroup_left(str(tmp_path / "max"), str(tmp_path / "current")) == 600
    (tmp_path / "max").write_text("max\n")
    assert doctor._cgroup_left(str(tmp_path / "max"), str(tmp_path / "current")) is None


def test_some_memory_is_available() -> None:
    available = doctor.available_memory()
    assert available is None or available > 1_000_000
