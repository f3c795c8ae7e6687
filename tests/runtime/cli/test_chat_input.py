"""Typed messages: lines joined to one, and a history that is kept, bounded, private and never in the way."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sottovoce.cli import chat_input
from sottovoce.cli.chat_input import MORE, PROMPT, History, Messages, history_path
from sottovoce.errors import InputError


def typed(*lines: str) -> tuple[Messages, list[str]]:
    """A reader of these lines, and the prompts that it showed."""
    rest: Iterator[str] = iter(lines)
    prompts: list[str] = []

    def read_line(prompt: str) -> str:
        prompts.append(prompt)
        line = next(rest, None)
        if line is None:
            raise EOFError
        return line

    return Messages(read_line), prompts


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one line"], "one line"),
        (["first\\", "second\\", "third"], "first\nsecond\nthird"),
        (['"""', "first", "", 'last"""'], "first\n\nlast"),
        (['"""', "first", '"""'], "first"),
        (['"""all"""'], "all"),
        (['  """first', '  indented """ '], "first\n  indented "),
        (["pasted\nlines"], "pasted\nlines"),
        (["ends here\\"], "ends here\\"),
        (['"""', "ends here"], "ends here"),
        (['say """ twice'], 'say """ twice'),
    ],
)
def test_lines_are_joined_to_a_message(lines: list[str], message: str) -> None:
    reader, prompts = typed(*lines)
    assert reader.read() == message
    assert prompts[0] == PROMPT and set(prompts[1:]) <= {MORE}


def test_the_end_of_input_is_the_end() -> None:
    with pytest.raises(EOFError):
        typed()[0].read()


def test_bytes_that_are_no_text_never_come_further_than_here() -> None:
    assert typed("a\udcffb")[0].read() == "a\ufffdb"

    def broken(prompt: str) -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    with pytest.raises(InputError, match="no utf-8 text"):
        Messages(broken).read()


class TestHistory:
    """What the arrow keys bring back."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "state" / "sottovoce" / "chat-history"

    def test_messages_come_back_with_their_lines_and_nobody_else_may_read_them(self, path: Path) -> None:
        reader, _ = typed("first\\", "second", "größer", "größer", "  ")
        reader.history = History(path)
        for _ in range(4):
            reader.read()
        reader.close()
        assert History(path).load() == ["first\nsecond", "größer"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [one.name for one in path.parent.iterdir()] == [path.name]

    def test_two_chats_at_once_both_keep_theirs(self, path: Path) -> None:
        first, second = History(path), History(path)
        first.add("one")
        second.add("two")
        first.save()
        second.save()
        assert History(path).load() == ["one", "two"]

    def test_it_is_bounded(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chat_input, "MAX_ENTRIES", 3)
        history = History(path)
        for number in range(5):
            history.add(f"{number}")
        history.add("x" * (chat_input.MAX_ENTRY + 1))
        history.save()
        assert History(path).load() == ["2", "3", "4"]

    def test_of_a_huge_or_damaged_file_what_can_be_read_is_read(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.parent.mkdir(parents=True)
        path.write_bytes(b'"old"\n' * 100 + b"[1]\n\xff\xff\n{\n" + json.dumps("last").encode() + b"\n")
        monkeypatch.setattr(chat_input, "MAX_BYTES", 26)
        assert History(path).load() == ["old", "last"]

    def test_one_that_cannot_be_kept_is_lost_quietly(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        history = History(tmp_path / "file" / "chat-history")
        history.add("one")
        history.save()
        assert history.load() == []

    def test_it_lies_in_the_users_folder_for_state(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert history_path() == tmp_path / "sottovoce" / "chat-history"
        monkeypatch.setenv("XDG_STATE_HOME", "relative")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert history_path() == tmp_path / "home" / ".local" / "state" / "sottovoce" / "chat-history"
