"""Live captions: a WAV in place of the microphone, the words on the screen and in the day's file."""

import io
import subprocess
import sys
from pathlib import Path

import captions
import pytest
from tests.examples.raspberry_pi.room_case import EXAMPLE

from sottovoce.streaming.events import Committed, Partial, SpeechEnded


@pytest.mark.weights
def test_what_is_said_is_written_while_it_is_heard_and_kept_in_a_file(
    tiny_bundle: Path, talk: Path, tmp_path: Path
) -> None:
    command = [sys.executable, EXAMPLE / "captions.py", tiny_bundle, "-", "--log", tmp_path]
    with talk.open("rb") as wav:
        done = subprocess.run(command, stdin=wav, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "heaven" in done.stdout and "\x1b" not in done.stdout
    (log,) = tmp_path.iterdir()
    assert [line.split(" ", 1)[1] for line in log.read_text().splitlines()] == done.stdout.splitlines()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_line_grows_in_place() -> None:
    out = Terminal()
    captions.show([Partial(" How", 0.0), Committed(" How are you?", (), "en"), SpeechEnded(1.0)], out, None)
    grown, finished = out.getvalue().rsplit(captions.CLEAR_LINE, 1)
    assert finished == "How are you?\n" and "\n" not in grown and f"{captions.DIM}How{captions.PLAIN}" in grown


def test_a_folder_that_is_not_there_and_a_bundle_that_is_none_end_it_with_one_line(tmp_path: Path) -> None:
    for arguments, said in (
        (["nowhere.svb", "-"], "nowhere.svb: no such bundle"),
        (["nowhere.svb", "-", "--log", "nowhere"], "nowhere is not a folder; create it first"),
    ):
        command = [sys.executable, EXAMPLE / "captions.py", *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
        )
        assert (done.returncode, done.stderr.strip()) == (2, said)
