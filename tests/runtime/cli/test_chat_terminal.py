"""`sottovoce chat` on a terminal: a process of its own on a pseudo-terminal, with a chat that says what it is told."""

import os
import re
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
pytest.importorskip("readline", reason="lines are edited by readline")

PATIENCE = 20.0  # seconds, for a machine that is busy
AGAIN = 2.0  # seconds after which a lost key is typed once more
CTRL_C, CTRL_D, UP = b"\x03", b"\x04", b"\x1b[A"


class Terminal:
    """A program on a terminal: what is typed in, and everything it has shown."""

    def __init__(self, folder: Path, *arguments: str, bundle: str = "b.gguf", **variables: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_STATE_HOME": str(folder), "TERM": "xterm"}
        environment |= variables
        command = [sys.executable, "-m", "tests.runtime.cli.talk_case", "chat", bundle, *arguments]
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            os.execve(sys.executable, command, environment)
        self.shown, self._seen = b"", 0

    def until(self, text: bytes) -> "Terminal":
        """Waits until `text` is shown behind what was waited for before."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown[self._seen :]:
            assert time.monotonic() < end and self._more(0.1), f"{text!r} is missing in {self.shown!r}"
        self._seen = self.shown.index(text, self._seen) + len(text)
        return self

    def type(self, keys: bytes) -> "Terminal":
        os.write(self._terminal, keys)
        return self

    def interrupt(self, text: bytes) -> "Terminal":
        """Ctrl-C until `text` is shown.

        Python's readline loses a signal that comes after it has shown the prompt and before it waits for keys.
        """
        end = time.monotonic() + PATIENCE
        while text not in self.shown[self._seen :]:
            assert time.monotonic() < end, f"{text!r} is missing in {self.shown!r}"
            self.type(CTRL_C)
            again = time.monotonic() + AGAIN
            while text not in self.shown[self._seen :] and time.monotonic() < again:
                self._more(0.1)
        return self.until(text)

    def ends(self, insisting: bytes = b"") -> int:
        """Its exit code; all that it shows until then is in `shown`. Keys that must not be lost are typed again."""
        end, again = time.monotonic() + PATIENCE, time.monotonic()
        while self._more(0.1):
            assert time.monotonic() < end, f"goes on: {self.shown!r}"
            if insisting and time.monotonic() >= again:
                with suppress(OSError):  # it has ended meanwhile
                    self.type(insisting)
                again = time.monotonic() + AGAIN
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def text(self) -> str:
        """What was shown, without colours and other controls."""
        return re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", self.shown.decode())

    def _more(self, seconds: float) -> bool:
        """Whether the program is still there."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return True
        try:
            read = os.read(self._terminal, 1 << 16)
        except OSError:  # the other side is gone
            return False
        self.shown += read
        return bool(read)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the program runs, with something in it that looks like a GGUF file."""
    root = str(Path(__file__).parents[3])
    monkeypatch.setattr(sys, "path", [root, *(str(Path(entry or ".").absolute()) for entry in sys.path)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    return tmp_path


def test_a_conversation_begins_with_a_line_of_what_is_known_and_ends_with_ctrl_d(model: Path) -> None:
    terminal = Terminal(model).until(b"> ").type(b"abc\n").until(b"[u] cba!").until(b"> ")
    terminal.type(CTRL_D)
    assert terminal.ends() == 0
    assert "b.gguf: fake 1, context 100 tokens; a note" in terminal.text()


def test_ctrl_c_stops_an_answer_and_the_next_one_knows_what_was_said(model: Path) -> None:
    terminal = Terminal(model).until(b"> ").type(b"long\n").until(b"once upon ").type(CTRL_C).until(b"stopped")
    terminal.until(b"> ").type(b"abc\n").until(b"[uau] cba!").until(b"> ").interrupt(b"Ctrl-C again")
    assert terminal.until(b"> ").ends(insisting=CTRL_C) == 0


def test_thinking_is_dim_and_the_answer_is_not(model: Path) -> None:
    terminal = Terminal(model).until(b"> ").type(b"long\n").until(b"once upon ").type(CTRL_C).until(b"> ").type(CTRL_D)
    assert terminal.ends() == 0
    assert b"\x1b[2mhm\x1b[0m\r\n\r\nonce upon " in terminal.shown


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_has_words_in_their_place(variables: dict[str, Any], model: Path) -> None:
    terminal = Terminal(model, **variables).until(b"> ").type(b"long\n").until(b"once upon ").type(CTRL_C)
    terminal.until(b"> ").type(CTRL_D)
    assert terminal.ends() == 0
    assert "(thinking)\nhm\n(answer)\nonce upon" in terminal.text() and b"\x1b[2m" not in terminal.shown


def test_lines_are_joined_and_come_back_with_the_arrow_key_in_another_chat(model: Path) -> None:
    terminal = Terminal(model).until(b"> ").type(b'"""\n').until(b". ").type(b"ab\n").until(b". ").type(b'c"""\n')
    terminal.until(b"[u] c").until(b"ba!").until(b"> ").type(b"/quit\n")
    assert terminal.ends() == 0
    terminal = Terminal(model).until(b"> ").type(UP + UP + b"\n").until(b"[u] c").until(b"ba!").until(b"> ")
    terminal.type(CTRL_D)
    assert terminal.ends() == 0


def test_a_pasted_text_of_several_lines_is_one_message(model: Path) -> None:
    import readline

    if "libedit" in (readline.__doc__ or ""):
        pytest.skip("libedit does not tell what was pasted")
    terminal = Terminal(model).until(b"> ").type(b"\x1b[200~ab\nc\x1b[201~").until(b"c").type(b"\n")
    terminal.until(b"[u] c").until(b"ba!").until(b"> ").type(CTRL_D)
    assert terminal.ends() == 0


def test_what_a_model_says_cannot_steer_the_terminal(model: Path) -> None:
    terminal = Terminal(model).until(b"> ").type(b'"""\n').until(b". ").type(b'm1[\x16\x1bx"""\n').until(b"x[1m!")
    terminal.until(b"> ").type(CTRL_D)
    assert terminal.ends() == 0
    assert b"x\x1b[1m" not in terminal.shown.replace(b"\x1b[?2004", b"")


def test_the_session_is_kept_at_the_end(model: Path) -> None:
    terminal = Terminal(model, "--session", "talk").until(b"> ").type(b"abc\n").until(b"cba!").until(b"> ")
    assert terminal.type(CTRL_D).ends() == 0 and (model / "talk").exists()
    terminal = Terminal(model, "--session", "talk").until(b"goes on with 2 messages").until(b"> ").type(CTRL_D)
    assert terminal.ends() == 0


@pytest.mark.parametrize("option", ["--json", "--raw"])
def test_what_is_for_one_answer_is_refused_in_a_conversation(option: str, model: Path) -> None:
    terminal = Terminal(model, option)
    assert terminal.ends() == 2
    assert terminal.text() == f"sottovoce: error: {option} is for one answer: add --prompt TEXT, or a pipe\n"


def test_a_model_that_was_not_made_to_answer_says_so_before_anything_is_typed(model: Path) -> None:
    terminal = Terminal(model, bundle="base.gguf")
    assert terminal.ends() == 2
    assert terminal.text() == "sottovoce: error: this model has no chat template\n"
