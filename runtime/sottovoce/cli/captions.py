"""What a stream of events looks like: on a terminal (screen.py), in a pipe, word by word, or as JSON lines.

Knows events and text streams. Knows nothing of audio, beyond that it has a level, nor of what makes the events.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from os import environ
from typing import Any, Protocol, TextIO

from sottovoce.cli.progress import clock
from sottovoce.cli.screen import Screen, clean, print_notice
from sottovoce.streaming.events import AudioDropped, Committed, Event, Partial, SpeechEnded, SpeechStarted

SAME_PLACE = 0.01  # seconds between two losses that are told as one

EVENT_NAMES: Mapping[type, str] = {
    SpeechStarted: "speech_started",
    Partial: "partial",
    Committed: "committed",
    SpeechEnded: "speech_ended",
    AudioDropped: "audio_dropped",
}


class Captions(Protocol):
    """Shows one stream."""

    def event(self, event: Event) -> None:
        """The next event."""
        ...

    def level(self, decibels: float) -> None:
        """How loud it is, below full scale; for those who draw it."""
        ...

    def notice(self, line: str) -> None:
        """A line for the user that is no part of the text."""
        ...

    def close(self) -> None:
        """Leaves the screen tidy; called once."""
        ...


def open_captions(*, words: bool = False, as_json: bool = False, meter: bool = False) -> Captions:
    """What suits stdout: a terminal that can rewrite a line has unsettled text too, and with `meter` the level."""
    if as_json:
        return JsonLines(sys.stdout, sys.stderr)
    if words:
        return WordLines(sys.stdout, sys.stderr)
    if sys.stdout.isatty() and environ.get("TERM") != "dumb":
        return Screen(sys.stdout, sys.stderr, meter=meter)
    return Lines(sys.stdout, sys.stderr)


def play(events: Iterable[Event], captions: Captions) -> None:
    """Shows every event; audio that was dropped is told in one line, once it is known how much that was."""
    lost: AudioDropped | None = None
    spoken = False
    try:
        for event in events:
            captions.event(event)
            spoken = spoken or isinstance(event, Committed)
            if isinstance(event, AudioDropped) and lost and abs(event.start - lost.end) < SAME_PLACE:
                lost = AudioDropped(lost.start, event.end)
                continue
            if lost:
                captions.notice(_told(lost))
            lost = event if isinstance(event, AudioDropped) else None
        if not spoken:
            captions.notice("no speech was heard")
    finally:
        if lost:
            captions.notice(_told(lost))


@dataclass
class Lines:
    """Settled text alone, flushed at once, a line for each utterance."""

    out: TextIO
    err: TextIO
    _open: bool = False

    def event(self, event: Event) -> None:
        if isinstance(event, Committed) and (text := clean(event.text)):
            self.out.write(text if self._open else text.lstrip())
            self._open = True
        elif isinstance(event, SpeechEnded):
            self._end()
        self.out.flush()

    def level(self, decibels: float) -> None:
        """Is not shown."""

    def notice(self, line: str) -> None:
        print_notice(line, self.err)

    def close(self) -> None:
        self._end()
        self.out.flush()

    def _end(self) -> None:
        if self._open:
            self.out.write("\n")
            self._open = False


@dataclass
class WordLines:
    """A line for each settled word: start and end in seconds, and the word, with tabs between them."""

    out: TextIO
    err: TextIO

    def event(self, event: Event) -> None:
        for word in event.words if isinstance(event, Committed) else ():
            self.out.write(f"{word.start:.2f}\t{word.end:.2f}\t{clean(word.word).strip()}\n")
        self.out.flush()

    def level(self, decibels: float) -> None:
        """Is not shown."""

    def notice(self, line: str) -> None:
        print_notice(line, self.err)

    def close(self) -> None:
        self.out.flush()


@dataclass
class JsonLines:
    """One JSON object a line for each event: its fields, and its name as `event`."""

    out: TextIO
    err: TextIO

    def event(self, event: Event) -> None:
        fields = {"event": EVENT_NAMES[type(event)]} | asdict(event)
        self.out.write(json.dumps(_rounded(fields), ensure_ascii=False, allow_nan=False) + "\n")
        self.out.flush()

    def level(self, decibels: float) -> None:
        """Is not shown."""

    def notice(self, line: str) -> None:
        print_notice(line, self.err)

    def close(self) -> None:
        self.out.flush()


def _told(lost: AudioDropped) -> str:
    return f"{lost.end - lost.start:.1f} s of audio were lost at {clock(lost.start)}"


def _rounded(value: Any) -> Any:
    """Floats to a millionth; what JSON cannot say becomes None."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
