"""A stream whose every part can be foretold: audio that is loud where a script says a word, voice activity that is
loudness, and a listener that reads the script as far as its excerpt goes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.streaming.chunks import Chunk
from sottovoce.streaming.events import Committed, Event, Partial, SpeechEnded, SpeechStarted
from sottovoce.streaming.listener import Excerpt, HeardWord, Hypothesis
from sottovoce.streaming.options import StreamOptions
from sottovoce.streaming.policy import Policy
from sottovoce.streaming.session import StreamSession
from sottovoce.types import Word
from sottovoce.vad import FRAME

RATE = 16_000
LOUD, QUIET = 0.95, 0.001

Float = NDArray[np.float32]
Hear = Callable[[Excerpt, Hypothesis], Hypothesis]


def said(words: int, start: float = 0.0, each: float = 0.28, gap: float = 0.02, first: int = 0) -> list[Word]:
    """Numbered words, one after the other; times in seconds."""
    begins = [round(start + i * (each + gap), 3) for i in range(words)]
    return [Word(at, round(at + each, 3), f" w{first + i}", 0.95) for i, at in enumerate(begins)]


def audio_of(script: Sequence[Word], seconds: float) -> Float:
    """Noise, loud where a word is said; no stretch of it is like another."""
    level = np.full(round(seconds * RATE), QUIET, np.float32)
    for word in script:
        level[round(word.start * RATE) : round(word.end * RATE)] = LOUD
    noise: Float = np.random.default_rng(0).uniform(-1, 1, level.size).astype(np.float32)
    return noise * level


def cut(audio: Float, *sizes: int) -> list[Float]:
    """The audio in chunks of these sizes, over and over."""
    chunks, at, turn = [], 0, 0
    while at < audio.size:
        chunks.append(audio[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return chunks


class Loudness:
    """Voice activity that is the loudest sample of each frame."""

    def run(self, frames: Float, context: Float, state: Any) -> tuple[Float, Any]:
        assert frames.shape[1:] == (FRAME,) and context.shape == (64,)
        return np.abs(frames).max(axis=1), state


@dataclass
class Script:
    """A listener that hears the words of a script; a word's only token is its number.

    It hears whatever has begun by the excerpt's end and follows the settled tokens, or, where nothing is settled, lies
    with its larger part in the excerpt. Of a word that is still being said it hears a part, and doubts it. `audio`,
    where given, is what every excerpt must be a part of. `clock` goes on by `cost` seconds each time.
    """

    words: Sequence[Word]
    audio: Float | None = None
    cost: float = 0.0
    mangle: Hear = lambda excerpt, hypothesis: hypothesis
    now: float = 0.0
    excerpts: list[Excerpt] = field(default_factory=list)  # what was heard, without its samples
    sizes: list[int] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def hear(self, excerpt: Excerpt, language: str | None) -> Hypothesis:
        self.now += self.cost
        self.excerpts.append(replace(excerpt, samples=excerpt.samples[:0]))
        self.sizes.append(excerpt.samples.size)
        if self.audio is not None:
            there = self.audio[excerpt.start : excerpt.start + excerpt.samples.size]
            np.testing.assert_array_equal(excerpt.samples, there)
        return self.mangle(excerpt, Hypothesis(tuple(self._heard(excerpt)), language or "en", False))

    def _heard(self, excerpt: Excerpt) -> Iterable[HeardWord]:
        start, end = excerpt.start / RATE, (excerpt.start + excerpt.samples.size) / RATE
        assert list(excerpt.settled) == sorted(set(excerpt.settled)), "settled once, in order"
        for number, word in enumerate(self.words):
            known = number <= excerpt.settled[-1] if excerpt.settled else (word.start + word.end) / 2 < start
            if known or word.start >= end:
                continue
            if word.end > end:
                word = Word(word.start, end, " part", 0.2)
            yield HeardWord(word, (number,))


def session_of(
    listener: Script, *, sample_rate: int = RATE, policy: Policy | None = None, **options: Any
) -> StreamSession:
    """A session over fakes, with settings that do not follow the defaults."""
    chosen = {"step": 0.3, "hold_back": 0.5, "end_of_speech": 0.6, "window": 15.0, "vad_threshold": 0.4, **options}
    settings = StreamOptions(**chosen)
    return StreamSession(listener, Loudness(), settings, sample_rate, listener.clock, policy=policy)  # type: ignore[arg-type]


def run(session: StreamSession, chunks: Iterable[Chunk]) -> list[Event]:
    """All events of a stream that ends."""
    events = [event for chunk in chunks for event in session.push(chunk)]
    return events + list(session.finish())


def live(audio: Float, script: Sequence[Word], size: int = 1600, **options: Any) -> tuple[list[Event], Script]:
    """Audio in chunks of one size, and the listener that heard it."""
    listener = Script(script, audio)
    return run(session_of(listener, **options), cut(audio, size)), listener


def words_of(events: Iterable[Event]) -> list[Word]:
    return [word for event in events if isinstance(event, Committed) for word in event.words]


def texts_of(events: Iterable[Event]) -> list[str]:
    return [word.word for word in words_of(events)]


def partials_of(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Partial)]


def check(events: Sequence[Event]) -> None:
    """What holds for every stream: speech begins before it is heard and ends; times never go back; a commit says what
    its words say; no partial is said twice."""
    speaking = False
    for event in events:
        if isinstance(event, SpeechStarted | SpeechEnded):
            assert speaking == isinstance(event, SpeechEnded), event
            speaking = not speaking
        elif isinstance(event, Committed | Partial):
            assert speaking, event
        if isinstance(event, Committed):
            assert event.words and event.text == "".join(word.word for word in event.words)
    assert not speaking
    turns = [event.time for event in events if isinstance(event, SpeechStarted | SpeechEnded)]
    assert turns == sorted(turns)
    times = [time for word in words_of(events) for time in (word.start, word.end)]
    assert times == sorted(times)
    for before, after in pairwise(events):
        if isinstance(before, Partial) and isinstance(after, Partial):
            assert before.text != after.text


# Two utterances with a long silence between them, the second with a short one inside.
TALK = [*said(6, 0.5), *said(4, 6.0, first=6), *said(5, 8.4, first=10)]
LENGTH = 12.0


def names(script: list[Word]) -> list[str]:
    """The words alone."""
    return [word.word for word in script]
