"""Live text on a terminal: settled text plain, unsettled text dim behind it, the level at the right.

Knows rows and columns and how to rewrite the end of a row. Lines are broken here, at words, and never by the terminal;
so it is known where the settled text ends, and what stands behind that place is never more than the rest of one row.
Nothing of the terminal's state is changed: there is nothing to restore.
"""

import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

from sottovoce.formats import columns
from sottovoce.streaming.events import Committed, Event, Partial, SpeechEnded

METER_STEPS = 8
METER_FLOOR = -60.0  # decibels below full scale: an empty meter
METER_MIN_COLUMNS = 40  # a terminal narrower than this has no meter

DIM, PLAIN, CLEAR_REST = "\x1b[2m", "\x1b[0m", "\x1b[K"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Screen:
    """`Captions` for a terminal, a line an utterance; `err` is where notices go, often the same terminal."""

    def __init__(
        self, out: TextIO, err: TextIO, *, meter: bool, terminal_columns: Callable[[], int] | None = None
    ) -> None:
        self._out, self._err, self._meter = out, err, meter
        self._terminal_columns = terminal_columns or (lambda: shutil.get_terminal_size().columns)
        self._wide = self._terminal_columns()
        self._column = 0  # where the settled text of this row ends
        self._partial = ""
        self._level = -math.inf
        self._pending: list[str] = []  # written at once, so that nothing flickers

    def event(self, event: Event) -> None:
        """Shows what has changed."""
        self._back()
        match event:
            case Committed():
                self._settle([word.word for word in event.words] or [event.text])
                # What was not settled of a partial text stays, until the next one comes.
                follows = self._partial.startswith(event.text)
                self._partial = self._partial.removeprefix(event.text) if follows else ""
            case Partial():
                self._partial = event.text
            case SpeechEnded():
                self._partial = ""
                self._end_row()
        self._show()

    def level(self, decibels: float) -> None:
        """Moves the meter."""
        if self._meter:
            self._level = decibels
            self._back()
            self._show()

    def notice(self, line: str) -> None:
        """Prints it on a row of its own."""
        if self._err.isatty():  # most likely the same screen
            self._back()
            self._end_row()
            self._flush()
        print_notice(line, self._err)
        self._show()

    def close(self) -> None:
        """Takes away what is not settled, and ends the row."""
        self._back()
        self._end_row()
        self._flush()

    def _back(self) -> None:
        """To the end of the settled text, with nothing behind it."""
        wide = self._terminal_columns()
        if wide < self._wide:  # a terminal made narrower has broken this row somewhere itself: begin another
            self._end_row()
        self._wide = wide
        self._pending.append(f"\x1b[{self._column + 1}G{CLEAR_REST}")

    def _settle(self, words: Iterable[str]) -> None:
        for word in words:
            text = clean(word)
            if self._column + columns(text.rstrip()) > self._room:
                self._end_row()
            for piece in _pieces(text if self._column else text.lstrip(), self._room):
                if self._column + columns(piece) > self._room:
                    self._end_row()
                self._pending.append(piece)
                self._column += columns(piece)

    def _show(self) -> None:
        """The unsettled text and the meter; the cursor ends behind the text."""
        text = clean(self._partial)
        left = self._room - self._column
        if columns(text) > left and left < self._room // 3:  # hardly any of it would be seen here
            self._end_row()
            left = self._room
        shown = _newest(text if self._column else text.lstrip(), left)
        if shown:
            self._pending.append(f"{DIM}{shown}{PLAIN}")
        if self._has_meter:
            end = self._column + columns(shown) + 1
            self._pending.append(f"\x1b[{self._wide - METER_STEPS}G{_bar(self._level)}\x1b[{end}G")
        self._flush()

    def _end_row(self) -> None:
        """A line break, unless the row is empty."""
        if self._column:
            self._pending.append("\n")
            self._column = 0

    def _flush(self) -> None:
        pending, self._pending = "".join(self._pending), []
        self._out.write(pending)
        self._out.flush()

    @property
    def _has_meter(self) -> bool:
        return self._meter and self._wide >= METER_MIN_COLUMNS

    @property
    def _room(self) -> int:
        """Columns for text. The last one of a terminal stays empty: terminals differ in what follows it."""
        return max(1, self._wide - (METER_STEPS + 2 if self._has_meter else 1))


def clean(text: str) -> str:
    """Without what a terminal would obey."""
    return _CONTROL.sub(" ", text)


def print_notice(line: str, err: TextIO) -> None:
    """A line for the user that is no part of the text."""
    print(f"sottovoce: {line}", file=err, flush=True)


def _bar(decibels: float) -> str:
    """The level from METER_FLOOR to full scale."""
    part = (decibels - METER_FLOOR) / -METER_FLOOR if math.isfinite(decibels) else 0.0
    full = round(METER_STEPS * min(1.0, max(0.0, part)))
    return "#" * full + "." * (METER_STEPS - full)


def _newest(text: str, room: int) -> str:
    """The end of a text that is too long, behind an ellipsis."""
    if columns(text) <= room:
        return text
    while text and columns(text) > room - 1:
        text = text[1:]
    return "…" + text if room > 0 else ""


def _pieces(text: str, room: int) -> Iterator[str]:
    """A word, cut only where it is longer than a row."""
    piece = ""
    for character in text:
        if piece and columns(piece + character) > room:
            yield piece
            piece = ""
        piece += character
    if piece:
        yield piece
