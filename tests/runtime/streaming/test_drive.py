"""A source and a session in one thread: when the source is read, and what becomes of both when one of them stops."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.runtime.streaming.stream_case import Script, audio_of, check, cut, said, session_of, texts_of

from sottovoce.errors import AudioError, EngineError
from sottovoce.streaming.chunks import AudioGap, Chunk
from sottovoce.streaming.drive import drive
from sottovoce.streaming.events import AudioDropped, Event, Partial, SpeechEnded

SCRIPT = said(12, 0.4)
AUDIO = audio_of(SCRIPT, 4.2)  # the last words are open when it ends
WORDS = [word.word for word in SCRIPT]


class Logged:
    """A session that says two things of each chunk and one at the end, and logs what it is told."""

    def __init__(self, log: list[str], fails: dict[int, BaseException] | None = None) -> None:
        self.log, self.fails, self.count = log, fails or {}, 0

    def push(self, chunk: Chunk) -> Iterator[Event]:
        self.count += 1
        self.log.append(f"push {self.count}")
        yield Partial(f"{self.count} a", 0.0)
        if self.count in self.fails:
            raise self.fails[self.count]
        yield Partial(f"{self.count} b", 0.0)

    def finish(self) -> Iterator[Event]:
        self.log.append("finish")
        yield SpeechEnded(9.0)

    def close(self) -> None:
        self.log.append("close")


class Source:
    """Chunks which are logged as they are read; then `error`."""

    def __init__(self, log: list[str], chunks: int = 3, error: BaseException | None = None) -> None:
        self.log, self.left, self.error = log, chunks, error

    def __iter__(self) -> "Source":
        return self

    def __next__(self) -> Chunk:
        if not self.left:
            raise self.error or StopIteration
        self.left -= 1
        self.log.append("read")
        return np.zeros(10, np.float32)

    def close(self) -> None:
        self.log.append("source closed")


ENDED = ["close", "source closed"]


def test_nothing_is_read_before_the_next_event_is_asked_for() -> None:
    log: list[str] = []
    events = drive(Logged(log), Source(log, 2))
    assert log == []
    seen = []
    for text in ("1 a", "1 b"):
        seen.append(next(events))
        assert seen[-1] == Partial(text, 0.0) and log == ["read", "push 1"]
    next(events)
    assert log == ["read", "push 1", "read", "push 2"]
    assert list(events)[-1] == SpeechEnded(9.0)
    assert log[4:] == ["finish", *ENDED]


def test_a_source_without_events_is_read_to_the_end() -> None:
    session = session_of(Script([]))
    assert list(drive(session, iter(cut(audio_of([], 2.0), 1600)))) == []


def test_a_list_is_a_source_too() -> None:
    assert texts_of(drive(session_of(Script(SCRIPT, AUDIO)), cut(AUDIO, 1600))) == WORDS


@pytest.mark.parametrize("error", [RuntimeError("unplugged"), KeyboardInterrupt(), OSError(5, "x"), SystemExit(3)])
def test_what_a_source_raises_is_raised_after_everything_said_is_committed(error: BaseException) -> None:
    def source() -> Iterator[Chunk]:
        yield from cut(AUDIO, 1600)
        raise error

    events = []
    with pytest.raises(type(error)) as told:
        for event in drive(session_of(Script(SCRIPT, AUDIO)), source()):
            events.append(event)
    assert told.value is error
    check(events)
    assert texts_of(events) == WORDS and isinstance(events[-1], SpeechEnded)


@pytest.mark.parametrize("error", [RuntimeError("unplugged"), KeyboardInterrupt()])
def test_a_source_that_raises_is_closed_with_its_session(error: BaseException) -> None:
    log: list[str] = []
    with pytest.raises(type(error)):
        list(drive(Logged(log), Source(log, 1, error)))
    assert log == ["read", "push 1", "finish", *ENDED]


def test_a_chunk_that_is_no_audio_is_an_error_after_what_was_said_before() -> None:
    chunks: list[Chunk] = [*cut(AUDIO, 1600), np.array([np.nan], np.float32)]
    events = []
    with pytest.raises(AudioError, match=r"4\.200 s"):
        for event in drive(session_of(Script(SCRIPT, AUDIO)), chunks):
            events.append(event)
    assert texts_of(events) == WORDS


def test_an_engine_that_fails_is_asked_for_nothing_more() -> None:
    log: list[str] = []
    events = []
    with pytest.raises(EngineError, match="memory"):
        for event in drive(Logged(log, {2: EngineError("out of memory")}), Source(log)):
            events.append(event)
    assert events[-1] == Partial("2 a", 0.0), "what was known before is said"
    assert log == ["read", "push 1", "read", "push 2", *ENDED]


@pytest.mark.parametrize("taken", range(8))
def test_closing_the_generator_at_any_moment_closes_session_and_source(taken: int) -> None:
    log: list[str] = []
    events = drive(Logged(log), Source(log, 3))
    for _ in range(taken):
        next(events, None)
    events.close()
    assert log.count("close") == log.count("source closed") == 1
    assert log[-2:] == ENDED and ("finish" in log) == (taken >= 7)
    assert next(events, None) is None


def test_a_generator_that_is_let_go_closes_session_and_source() -> None:
    log: list[str] = []
    events = drive(Logged(log), Source(log, 3))
    next(events)
    del events
    assert log[-2:] == ENDED


def test_closing_while_a_real_session_speaks_frees_its_audio() -> None:
    session = session_of(Script(SCRIPT, AUDIO))
    events = drive(session, cut(AUDIO, 1600))
    while not texts_of([next(events)]):
        pass
    events.close()
    assert session._window.samples.size == 0 and session._utterance.tokens == []


def test_an_error_thrown_in_by_the_consumer_is_answered_with_what_is_open() -> None:
    log: list[str] = []
    events = drive(Logged(log), Source(log, 3))
    next(events)
    assert events.throw(KeyboardInterrupt()) == SpeechEnded(9.0)
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert log[-2:] == ENDED


def test_a_gap_goes_through_as_any_chunk() -> None:
    events = list(drive(session_of(Script([])), [AudioGap(2.0)]))
    assert events == [AudioDropped(0.0, 2.0)]


@pytest.mark.parametrize("source", [lambda: iter([np.zeros(3, np.float32)]), lambda: [np.zeros(3, np.float32)]])
def test_a_source_that_cannot_be_closed_needs_no_closing(source: Callable[[], Any]) -> None:
    log: list[str] = []
    assert list(drive(Logged(log), source()))[-1] == SpeechEnded(9.0)
    assert log[-1] == "close"
