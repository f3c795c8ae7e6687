from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sottovoce
from sottovoce.errors import InputError
from sottovoce.types import Segment, TranscriptionInfo
from sottovoce_compiler.report.artifact import bundle_transcriber
from sottovoce_compiler.report.dataset import Clip


@dataclass
class Fake:
    """The runtime's Transcriber: hears German first, and says which language it was asked for."""

    path: str
    english_only: bool = False

    @property
    def languages(self) -> tuple[str, ...]:
        return ("en",) if self.english_only else ("en", "de", "fr")

    def transcribe(self, audio: str, language: str | None = None) -> tuple[Iterator[Segment], TranscriptionInfo]:
        if self.english_only and language not in (None, "en"):
            raise InputError("English only")
        heard = language or ("en" if self.english_only else "de")
        said = (" said", f" in {heard}.")
        segments = (Segment(i, 0.0, 1.0, text, (), 0.0, 0.0, 1.0, 0.0) for i, text in enumerate(said))
        return segments, TranscriptionInfo(heard, 0.75, 1.0, 1.0)


def hear(
    monkeypatch: pytest.MonkeyPatch, language: str | None, text: str = "text", **options: Any
) -> tuple[str, str | None]:
    monkeypatch.setattr(sottovoce, "Transcriber", lambda path: Fake(path, **options), raising=False)
    said = bundle_transcriber("x.svb")(Clip("a", Path("a.wav"), text, language, 1.0))
    return said.text, said.language


def test_the_right_language_is_transcribed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hear(monkeypatch, "de") == ("said in de.", "de")


def test_a_language_misheard_is_counted_and_the_known_one_is_transcribed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert hear(monkeypatch, "fr") == ("said in fr.", "de")


def test_a_clip_of_unknown_language_or_without_speech_stays_as_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hear(monkeypatch, None) == ("said in de.", "de")
    assert hear(monkeypatch, "fr", text="") == ("said in de.", "de")


def test_an_english_only_bundle_keeps_its_one_answer_and_identifies_no_language(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert hear(monkeypatch, "fr", english_only=True) == ("said in en.", None)
