"""What the examples hear with: the microphone or a pipe, an ear that can be shut, and whole utterances."""

import sys
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np

from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.events import Committed, Event, Partial, SpeechEnded
from sottovoce.streaming.sources import LiveSource

STDIN = "-"
SECONDS_AFTER = 0.4  # the room, and the sound card's buffers, go on for so long after the loudspeaker has ended


def open_source(name: str | None, device: str | None) -> LiveSource:
    """Standard input for "-" (16 kHz, 16 bit, mono, or behind a WAV header), else the microphone.

    Raises MissingExtraError where what the microphone needs is not installed, InputError for a device that does not
    exist.
    """
    if name == STDIN:
        from sottovoce.streaming.sources.pipe import PipeSource

        return PipeSource(sys.stdin.buffer)
    from sottovoce.streaming.sources.microphone import Microphone

    return Microphone(device)


class Ear:
    """A source that can be shut: what comes meanwhile is heard as silence of the same length, so that times stay right.

    `with ear.shut():` may be used from another thread than the one that listens.
    """

    def __init__(self, source: LiveSource, after: float = SECONDS_AFTER) -> None:
        self._source, self._after = source, after
        self._lock = threading.Lock()
        self._shut = False
        self._deaf = 0.0  # seconds of audio to come that are silence, whatever they are

    def shut(self) -> "_Shut":
        """Nothing is heard within this context, nor shortly after it."""
        return _Shut(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AudioChunk | AudioGap:
        chunk = next(self._source)
        if not isinstance(chunk, AudioChunk):
            return chunk
        with self._lock:
            # A chunk is all that came since the last one: what was said before the ear was shut may be in it too.
            deaf = self._shut or self._deaf > 0
            if not self._shut:
                self._deaf = max(0.0, self._deaf - len(chunk.samples) / chunk.sample_rate)
        return AudioChunk(np.zeros_like(chunk.samples), chunk.sample_rate) if deaf else chunk

    def stop(self) -> None:
        """Takes in nothing more."""
        self._source.stop()

    def close(self) -> None:
        """Gives the microphone back."""
        self._source.close()

    def _set(self, shut: bool) -> None:
        with self._lock:
            self._shut, self._deaf = shut, self._after


class _Shut:
    def __init__(self, ear: Ear) -> None:
        self._ear = ear

    def __enter__(self) -> None:
        self._ear._set(True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ear._set(False)


def utterances(events: Iterable[Event]) -> Iterator[tuple[str, bool]]:
    """What is said, as (text, whether it is complete): first as far as it is known, again whenever more of it is, and
    complete once the speaker pauses."""
    settled = ""
    for event in events:
        if isinstance(event, Committed):
            settled += event.text
            yield settled.strip(), False
        elif isinstance(event, Partial) and event.text:
            yield (settled + event.text).strip(), False
        elif isinstance(event, SpeechEnded):
            if settled.strip():
                yield settled.strip(), True
            settled = ""
