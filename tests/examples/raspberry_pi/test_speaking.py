"""Text in pieces becomes sentences that can be said; a speaker says them, and stops when it is told to."""

import os
import stat
import threading
import time
from pathlib import Path

import pytest
from speaking import MOST, Espeak, sentences

from sottovoce.errors import MissingExtraError


def letters(text: str) -> list[str]:
    return list(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is noon. The sun is high!", ["It is noon.", "The sun is high!"]),
        ("It costs 3.50 today. Fine", ["It costs 3.50 today.", "Fine"]),
        ('He said "Go!" Then he left.', ['He said "Go!"', "Then he left."]),
        ("One\n\n- **two**\n- `three`", ["One", "- two", "- three"]),
        ("See https://example.org/x for more.", ["See for more."]),
        ("***\n\n...", []),
        ("", []),
    ],
)
def test_sentences_are_cut_where_one_ends_and_without_what_nobody_says(text: str, expected: list[str]) -> None:
    assert list(sentences(letters(text))) == expected
    assert list(sentences([text])) == expected


def test_a_sentence_comes_as_soon_as_it_is_whole() -> None:
    given: list[str] = []

    def pieces() -> "list[str] | object":
        for piece in ("Hel", "lo. ", "How are", " you?"):
            given.append(piece)
            yield piece

    assert next(iter(sentences(pieces()))) == "Hello."  # type: ignore[arg-type]
    assert given == ["Hel", "lo. "]


def test_a_text_without_an_end_is_cut_between_words() -> None:
    said = list(sentences(["word " * 100]))
    assert all(len(part) <= MOST for part in said) and " ".join(said).split() == ["word"] * 100


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """espeak-ng and aplay that note what they were given; espeak-ng takes a while for "slow"."""
    for name, script in (
        (
            "espeak-ng",
            'echo "$@" >> "$0.log"; text=$(cat); echo "$text" | tee -a "$0.log"; case $text in slow*) sleep 60;; esac',
        ),
        ("aplay", 'echo "$@" >> "$0.log"; cat >> "$0.log"'),
    ):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_text_that_looks_like_an_option_is_said_and_not_obeyed(programs: Path) -> None:
    Espeak("en-gb").say("--help")
    assert (programs / "espeak-ng.log").read_text() == "-v en-gb -s 160 --stdin\n--help\n"


def test_another_output_is_played_by_aplay(programs: Path) -> None:
    Espeak(device="plughw:1").say("hello")
    assert (programs / "aplay.log").read_text() == "-q -D plughw:1\nhello\n"


@pytest.mark.parametrize("device", [None, "plughw:1"])
def test_a_speaker_that_is_stopped_is_silent_at_once(device: str | None, programs: Path) -> None:
    speaker = Espeak(device=device)
    thread = threading.Thread(target=speaker.say, args=("slow words",))
    thread.start()
    deadline = time.monotonic() + 20
    while not (programs / "espeak-ng.log").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    while thread.is_alive() and time.monotonic() < deadline:
        speaker.stop()
        thread.join(0.05)
    assert not thread.is_alive()


@pytest.mark.parametrize(("device", "package"), [(None, "espeak-ng"), ("plughw:1", "espeak-ng")])
def test_a_program_that_is_not_there_is_named_with_its_package(
    device: str | None, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match=f"sudo apt install {package}"):
        Espeak(device=device).say("hello")
