"""A transcriber whose stream says what a test wrote down, whatever it hears."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from sottovoce.errors import InputError
from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.events import AudioDropped, Committed, Event, Partial, SpeechEnded, SpeechStarted
from sottovoce.types import Word


def committed(text: str, start: float = 0.0) -> Committed:
    """Words of half a second each."""
    words = [Word(start + i / 2, start + i / 2 + 0.4, f" {word}", 0.9) for i, word in enumerate(text.split())]
    return Committed("".join(word.word for word in words), tuple(words), "en")


SPEECH: tuple[Event, ...] = (
    SpeechStarted(0.3),
    Partial(" Ask nut", 0.3),
    committed("Ask not", 0.5),
    Partial(" what", 1.5),
    committed("what.", 1.5),
    SpeechEnded(2.0),
    SpeechStarted(3.0),
    committed("Ask why.", 3.0),
    SpeechEnded(4.0),
)


class FakeTranscriber:
    """Takes in the whole source, then says SPEECH; `heard` is what came, `options` how it was asked."""

    made: "list[FakeTranscriber]" = []  # noqa: RUF012  # reset by the fixture
    says: tuple[Event, ...] = SPEECH

    def __init__(self, path: str, threads: int | None = None) -> None:
        self.path, self.threads = path, threads
        self.options: dict[str, Any] = {}
        self.heard: list[AudioChunk] = []
        self.log: list[str] = []
        self.made.append(self)

    def load(self) -> None:
        self.log.append("load")

    def close(self) -> None:
        self.log.append("close")

    def stream(self, chunks: Iterable[AudioChunk | AudioGap], **options: Any) -> Iterator[Event]:
        self.options = options
        if options.get("language") == "xx":
            raise InputError("no language 'xx'")
        return self._events(chunks)

    def _events(self, chunks: Any) -> Iterator[Event]:
        with closing(chunks):
            error: BaseException | None = None
            try:
                for chunk in chunks:
                    if isinstance(chunk, AudioGap):
                        yield AudioDropped(self.seconds, self.seconds + chunk.seconds)
                    else:
                        self.heard.append(chunk)
            except Exception as raised:
                error = raised
            yield from self.says
            if error is not None:
                raise error

    @property
    def seconds(self) -> float:
        return round(sum(len(one.samples) / one.sample_rate for one in self.heard), 6)

    @property
    def samples(self) -> "np.ndarray[Any, np.dtype[np.float32]]":
        return np.concatenate([one.samples for one in self.heard])
