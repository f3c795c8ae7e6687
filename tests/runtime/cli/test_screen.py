"""Live text on a terminal of a few rows and columns, as one would see it."""

import io
import re
import unicodedata
from collections.abc import Sequence

import pytest

from sottovoce.cli.screen import Screen
from sottovoce.formats import columns
from sottovoce.streaming.events import Committed, Event, Partial, SpeechEnded, SpeechStarted
from sottovoce.types import Word


class Terminal(io.StringIO):
    """A screen that obeys what is used here: line breaks, carriage returns, going to a column, clearing the rest, dim.

    `rows` holds cells of (character, is dim). Text that would run over the right edge is a fault.
    """

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.wide, self.rows, self.at, self.dim = wide, [[(" ", False)] * wide], 0, False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for control, character in re.findall(r"(\x1b\[\d*[A-Za-z])|(.|\n)", text):
            self._obey(control) if control else self._put(character)
        return len(text)

    def _obey(self, control: str) -> None:
        number, action = control[2:-1], control[-1]
        if action == "G":
            self.at = int(number or 1) - 1
        elif action == "K":
            self.rows[-1][self.at :] = [(" ", False)] * (self.wide - self.at)
        elif action == "m":
            self.dim = number == "2"
        else:
            raise AssertionError(f"unknown {control!r}")

    def _put(self, character: str) -> None:
        if character == "\n":
            self.rows.append([(" ", False)] * self.wide)
            self.at = 0
            return
        if unicodedata.combining(character):
            return
        assert character.isprintable(), repr(character)
        assert self.at + columns(character) < self.wide + (character in "#."), "over the edge"
        self.rows[-1][self.at] = (character, self.dim)
        for cell in range(1, columns(character)):
            self.rows[-1][self.at + cell] = ("", self.dim)
        self.at += columns(character)

    def shown(self, *, dim: bool | None = None) -> list[str]:
        """The rows as text; only what is dim, or is not, if asked for."""
        return ["".join(c if dim in (None, d) else " " for c, d in row).rstrip() for row in self.rows]


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(0.0, 0.1, " " + word, 1.0) for word in text.split())


def settled(text: str) -> Committed:
    return Committed("".join(word.word for word in words(text)), words(text), "en")


def show(events: Sequence[Event], wide: int = 30, *, meter: bool = False) -> tuple[Screen, Terminal]:
    terminal = Terminal(wide)
    screen = Screen(terminal, terminal, meter=meter, terminal_columns=lambda: terminal.wide)
    for event in events:
        screen.event(event)
    return screen, terminal


def test_settled_text_is_plain_and_unsettled_text_dim_behind_it() -> None:
    _, terminal = show([SpeechStarted(0.0), settled("ask not"), Partial(" what your", 0.5)])
    assert terminal.shown(dim=False) == ["ask not"] and terminal.shown(dim=True) == ["        what your"]


def test_unsettled_text_is_rewritten_in_place() -> None:
    _, terminal = show([Partial(" ask nut what", 0.0), Partial(" ask not", 0.0)])
    assert terminal.shown() == ["ask not"]


def test_what_was_settled_of_unsettled_text_is_not_shown_twice() -> None:
    _, terminal = show([Partial(" ask not what", 0.0), settled("ask not")])
    assert terminal.shown(dim=False) == ["ask not"] and terminal.shown(dim=True) == ["        what"]
    _, terminal = show([Partial(" ask nut what", 0.0), settled("ask not")])
    assert terminal.shown() == ["ask not"]


def test_each_utterance_has_its_own_row() -> None:
    _, terminal = show(
        [settled("one"), Partial(" tw", 1.0), SpeechEnded(1.0), SpeechEnded(1.5), settled("two"), SpeechEnded(2.0)]
    )
    assert terminal.shown() == ["one", "two", ""]


def test_settled_text_is_broken_between_words() -> None:
    _, terminal = show([settled("the quick brown fox jumps over"), settled("the lazy dog")], 16)
    assert terminal.shown() == ["the quick brown", "fox jumps over", "the lazy dog"]


def test_a_word_longer_than_a_row_is_cut() -> None:
    _, terminal = show([settled("a " + "x" * 25 + " b")], 11)
    assert terminal.shown() == ["a", "x" * 10, "x" * 10, "xxxxx b"]


def test_unsettled_text_that_is_too_long_shows_its_end() -> None:
    _, terminal = show([settled("ask not"), Partial(" what your country can do for you", 0.5)])
    assert terminal.shown() == ["ask not…ountry can do for you"]


def test_unsettled_text_with_hardly_any_room_goes_to_the_next_row() -> None:
    _, terminal = show([settled("ask not what your country"), Partial(" can do for you", 0.5)])
    assert terminal.shown() == ["ask not what your country", "can do for you"]
    _, terminal = show([settled("ask not what your country"), Partial(" can", 0.5)])
    assert terminal.shown() == ["ask not what your country can"]


def test_wide_characters_count_as_two_columns() -> None:
    spoken = Committed(
        "我们要问的不是国家能为你做什么", tuple(Word(0, 0, c, 1.0) for c in "我们要问的不是国家能为你做什么"), "zh"
    )
    _, terminal = show([spoken, Partial("而是你能为国家做什么", 1.0)], 12)
    assert terminal.shown() == ["我们要问的", "不是国家能", "为你做什么", "…国家做什么"]


@pytest.mark.parametrize("wide", [2, 3, 10, 39, 40, 41, 200])
@pytest.mark.parametrize("meter", [False, True])
def test_nothing_runs_over_the_edge(wide: int, meter: bool) -> None:
    events: list[Event] = [settled("so my fellow Americans ask"), Partial(" not what your country can do" * 9, 0.0)]
    screen, terminal = show(events * 3, wide, meter=meter)
    screen.level(0.0)
    screen.close()
    text = "".join(terminal.shown()).replace(" ", "")
    assert wide < 3 or text == "somyfellowAmericansask" * 3


def test_the_level_stands_at_the_right_and_moves() -> None:
    screen, terminal = show([settled("ask")], 40, meter=True)
    screen.level(-30.0)
    assert terminal.shown() == ["ask" + " " * 28 + "####...."] and terminal.at == 3
    screen.level(0.0)
    assert terminal.shown() == ["ask" + " " * 28 + "########"]
    screen.level(float("-inf"))
    assert terminal.shown() == ["ask" + " " * 28 + "........"]


def test_the_level_does_not_stay_behind_on_rows_that_are_done() -> None:
    screen, terminal = show([], 40, meter=True)
    screen.level(-10.0)
    for event in (settled("one"), Partial(" tw", 0.0), SpeechEnded(1.0), settled("two " * 20)):
        screen.event(event)
    screen.close()
    assert not any("#" in row for row in terminal.shown())


def test_a_narrow_terminal_has_no_level() -> None:
    screen, terminal = show([settled("ask")], 39, meter=True)
    screen.level(-10.0)
    assert terminal.shown() == ["ask"]


def test_closing_takes_unsettled_text_away_and_ends_the_row() -> None:
    screen, terminal = show([settled("ask not"), Partial(" what", 0.5)])
    screen.close()
    assert terminal.shown() == ["ask not", ""] and terminal.at == 0


def test_closing_an_empty_screen_leaves_no_empty_row() -> None:
    screen, terminal = show([])
    screen.close()
    assert terminal.shown() == [""]


def test_a_notice_has_a_row_of_its_own_and_the_text_goes_on_below() -> None:
    screen, terminal = show([settled("ask not"), Partial(" what", 0.5)], 60)
    screen.notice("microphone 'USB' is gone")
    screen.event(settled("what your"))
    assert terminal.shown() == ["ask not", "sottovoce: microphone 'USB' is gone", "what your"]


def test_a_notice_elsewhere_does_not_break_the_row() -> None:
    terminal, elsewhere = Terminal(60), io.StringIO()
    screen = Screen(terminal, elsewhere, meter=False, terminal_columns=lambda: 60)
    screen.event(settled("ask"))
    screen.notice("gone")
    screen.event(settled("not"))
    assert terminal.shown() == ["ask not"] and elsewhere.getvalue() == "sottovoce: gone\n"


def test_a_terminal_made_narrower_begins_a_new_row() -> None:
    screen, terminal = show([settled("the quick brown fox")], 40)
    terminal.rows = [row[:20] for row in terminal.rows]
    terminal.wide = 20
    screen.event(settled("jumps"))
    assert terminal.shown()[-1] == "jumps"


def test_what_a_terminal_would_obey_is_not_passed_on() -> None:
    spoken = Committed(" a\x1b[2Jb\nc", (Word(0, 0, " a\x1b[2Jb\nc", 1.0),), "en")
    _, terminal = show([spoken, Partial(" d\te\x07", 0.0)])
    assert terminal.shown() == ["a [2Jb c d e"]
