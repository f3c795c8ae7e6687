"""The same on an event loop: decoding beside reading, and nothing left behind."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest
from tests.runtime.streaming.stream_case import Script, audio_of, check, cut, said, session_of, texts_of

from sottovoce.errors import AudioError, EngineError
from sottovoce.streaming.asynchronous import drive_async, joined
from sottovoce.streaming.chunks import AudioChunk, AudioGap, Chunk
from sottovoce.streaming.events import Event, Partial, SpeechEnded

SCRIPT = said(12, 0.4)
AUDIO = audio_of(SCRIPT, 4.2)
WORDS = [word.word for word in SCRIPT]
PATIENCE = 20  # seconds after which something hangs


class Gated:
    """A session whose pushes wait for `open`; it says how many samples came in each."""

    def __init__(self, fails: dict[int, Exception] | None = None) -> None:
        self.open, self.begun = threading.Event(), threading.Event()
        self.fails, self.sizes, self.closed, self.finished = fails or {}, list[int](), 0, False
        self.threads: set[str] = set()

    def push(self, chunk: Chunk) -> Iterator[Event]:
        assert isinstance(chunk, np.ndarray)
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        assert self.open.wait(PATIENCE)
        self.sizes.append(chunk.size)
        yield Partial(str(len(self.sizes)), 0.0)
        if len(self.sizes) in self.fails:
            raise self.fails[len(self.sizes)]

    def finish(self) -> Iterator[Event]:
        self.finished = True
        yield SpeechEnded(9.0)

    def close(self) -> None:
        self.closed += 1


class Source:
    """Chunks of ten samples without end or up to a number; counts what was taken."""

    def __init__(self, chunks: int = 1 << 30, error: BaseException | None = None) -> None:
        self.left, self.error, self.given, self.closed = chunks, error, 0, 0

    def __aiter__(self) -> "Source":
        return self

    async def __anext__(self) -> Chunk:
        if not self.left:
            raise self.error or StopAsyncIteration
        self.left -= 1
        self.given += 1
        return np.zeros(10, np.float32)

    async def aclose(self) -> None:
        self.closed += 1


def on_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run, and see that no task and no thread is left."""

    async def watched() -> None:
        await asyncio.wait_for(main(), PATIENCE)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [one.name for one in threading.enumerate() if one.name.startswith("sottovoce")] == []

    asyncio.run(watched())


async def settled(turns: int = 200) -> None:
    """Let everything that can happen without the session happen."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


async def given(chunks: list[Any], error: BaseException | None = None) -> AsyncGenerator[Chunk, None]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk
    if error is not None:
        raise error


def test_the_events_are_those_of_the_same_audio_without_a_loop() -> None:
    async def main() -> None:
        session = session_of(Script(SCRIPT, AUDIO))
        events = [event async for event in drive_async(session, given(cut(AUDIO, 1600)))]
        check(events)
        assert texts_of(events) == WORDS and isinstance(events[-1], SpeechEnded)
        assert session._window.samples.size == 0, "closed"

    on_loop(main)


@pytest.mark.parametrize("error", [RuntimeError("unplugged"), OSError(5, "x")])
def test_what_a_source_raises_is_raised_after_everything_said_is_committed(error: Exception) -> None:
    async def main() -> None:
        events = []
        with pytest.raises(type(error)) as told:
            async for event in drive_async(session_of(Script(SCRIPT, AUDIO)), given(cut(AUDIO, 1600), error)):
                events.append(event)
        assert told.value is error
        check(events)
        assert texts_of(events) == WORDS

    on_loop(main)


def test_a_chunk_that_is_no_audio_is_an_error_after_what_was_said_before() -> None:
    chunks = [*cut(AUDIO, 1600), np.array([np.nan], np.float32), *cut(AUDIO, 1600)]

    async def main() -> None:
        events = []
        with pytest.raises(AudioError, match=r"4\.200 s"):
            async for event in drive_async(session_of(Script(SCRIPT, AUDIO)), given(chunks)):
                events.append(event)
        check(events)
        assert texts_of(events) == WORDS

    on_loop(main)


def test_an_engine_that_fails_is_asked_for_nothing_more() -> None:
    session, source, events = Gated({1: EngineError("out of memory")}), Source(5), list[Event]()
    session.open.set()

    async def main() -> None:
        with pytest.raises(EngineError, match="memory"):
            async for event in drive_async(session, source):
                events.append(event)

    on_loop(main)
    assert events == [Partial("1", 0.0)], "what was known before is said"
    assert (len(session.sizes), session.finished, session.closed, source.closed) == (1, False, 1, 1)


def test_a_late_session_takes_what_came_meanwhile_as_one_chunk() -> None:
    session, source = Gated(), Source(40)

    async def main() -> None:
        async def opens_late() -> None:
            await until(session.begun)
            await settled()
            session.open.set()

        opening = asyncio.create_task(opens_late())
        events = [event async for event in drive_async(session, source)]
        await opening
        assert events[-1] == SpeechEnded(9.0)

    on_loop(main)
    assert sum(session.sizes) == 400 and len(session.sizes) <= 2
    assert len(session.threads) == 1 and "MainThread" not in session.threads


def test_a_source_gets_no_further_ahead_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sottovoce.streaming.asynchronous._MOST_WAITING", 7)
    session, source = Gated(), Source()

    async def main() -> None:
        events = drive_async(session, source)
        assert source.given == 0
        asking = asyncio.ensure_future(anext(events))
        await until(session.begun)
        await settled()
        at_first = source.given
        await settled()
        # What is being decoded, what waits, and the one in the reader's hand.
        assert source.given == at_first <= 7 + 7 + 1
        session.open.set()
        await asking
        await settled()
        assert source.given <= at_first + 7 + 1, "a consumer that asks for nothing more is waited for"
        await events.aclose()

    on_loop(main)
    assert session.closed == source.closed == 1


@pytest.mark.parametrize("chunks", [3, 1 << 30])
def test_closing_in_the_middle_leaves_nothing_behind(chunks: int) -> None:
    session, source = Gated(), Source(chunks)
    session.open.set()

    async def main() -> None:
        events = drive_async(session, source)
        assert await anext(events) == Partial("1", 0.0)
        await settled()
        await events.aclose()

    on_loop(main)
    assert session.closed == source.closed == 1 and not session.finished


def test_a_consumer_that_is_cancelled_leaves_nothing_behind() -> None:
    session, source = Gated(), Source()

    async def main() -> None:
        async def consume() -> None:
            async for _ in drive_async(session, source):
                pass

        consuming = asyncio.create_task(consume())
        await until(session.begun)
        consuming.cancel()
        await settled()
        session.open.set()  # a decoding under way is waited for
        with pytest.raises(asyncio.CancelledError):
            await consuming
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if "watched" not in repr(task.get_coro()):
                await task  # the loop closes a generator that was let go
        assert session.closed == source.closed == 1

    on_loop(main)


def test_a_source_that_ends_itself_by_cancelling_does_not_hang() -> None:
    session = Gated()
    session.open.set()

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            async for _ in drive_async(session, Source(2, asyncio.CancelledError())):
                pass

    on_loop(main)
    assert session.closed == 1 and session.finished


def test_a_source_of_its_own_kind_is_closed_and_one_that_cannot_be_needs_no_closing() -> None:
    class Plain:
        def __aiter__(self) -> AsyncIterator[Chunk]:
            return given([np.zeros(5, np.float32)])

    session = Gated()
    session.open.set()

    async def main() -> None:
        assert [type(event) async for event in drive_async(session, Plain())][-1] is SpeechEnded

    on_loop(main)
    assert session.closed == 1


def test_neighbouring_arrays_of_one_kind_become_one() -> None:
    one, two = np.arange(3, dtype=np.float32), np.arange(4, dtype=np.float32)
    stereo, whole, gap = np.zeros((2, 2), np.float32), np.zeros(2, np.int16), AudioGap(1.0)
    other = AudioChunk(one, 8000)
    found = joined([one, two, stereo, stereo, whole, gap, one, one, two, other, one])
    shapes = [chunk.shape if isinstance(chunk, np.ndarray) else chunk for chunk in found]
    assert shapes == [(7,), (4, 2), (2,), gap, (10,), other, (3,)]
    np.testing.assert_array_equal(found[0], [0, 1, 2, 0, 1, 2, 3])
    assert joined([]) == []


def test_what_is_no_audio_is_not_joined_and_not_hidden() -> None:
    scalar, array, words = np.float32(1) + np.zeros(()), np.zeros(3, np.float32), "no audio"
    odd: list[Any] = [np.asarray(scalar), array, words, array]
    assert [id(chunk) for chunk in joined(odd)] == [id(chunk) for chunk in odd]
