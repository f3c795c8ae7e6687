"""Loading a part: what it says of itself, and the command that brings the system library it lacks."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from sottovoce.doctor import probe
from sottovoce.errors import MissingExtraError
from sottovoce.streaming.sources import microphone


@pytest.fixture(autouse=True)
def debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")


def test_a_microphone_without_portaudio_names_the_system_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library() -> None:
        raise MissingExtraError("sounddevice finds no PortAudio library; on Debian: sudo apt install libportaudio2")

    monkeypatch.setattr(microphone, "input_devices", no_library)
    assert probe.probe("mic") == {
        "problem": "sounddevice finds no PortAudio library",
        "install": "sudo apt install libportaudio2",
    }


def test_another_system_is_not_told_to_use_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert probe._apt("libportaudio2") is None


@pytest.mark.parametrize(
    ("devices", "note"),
    [
        ([], "no microphone is connected"),
        ([("USB", False), ("HAT", True)], "hears HAT"),
        ([("USB", False)], "hears USB"),
    ],
)
def test_a_microphone_that_works_is_named(
    devices: list[tuple[str, bool]], note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [SimpleNamespace(name=name, is_default=default) for name, default in devices]
    monkeypatch.setattr(microphone, "input_devices", lambda: found)
    assert probe.probe("mic") == {"note": note}


def test_recordings_without_libsndfile_name_the_system_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        """Importing from it fails as soundfile does without its library."""

    def refuse(name: str, *rest: object) -> ModuleType:
        if name == "soundfile":
            raise OSError("sndfile library not found")
        return real(name, *rest)  # type: ignore[arg-type]

    real = __import__
    monkeypatch.setattr("builtins.__import__", refuse)
    assert probe.probe("audio")["install"] == "sudo apt install libsndfile1"


def test_whatever_a_package_raises_is_the_answer_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("built for another processor\nand more")

    monkeypatch.setattr(probe, "PROBES", {"chat": broken})
    assert probe.probe("chat") == {"problem": "it cannot be loaded: built for another processor"}


def test_a_part_that_nobody_knows_how_to_load_is_not_tried() -> None:
    assert probe.probe("compiler") == {"note": None}
