"""A session and a source brought together on an event loop: `drive` for asyncio, of which it keeps the rules."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from sottovoce.errors import EngineError
from sottovoce.streaming.chunks import Chunk
from sottovoce.streaming.drive import Session
from sottovoce.streaming.events import Event

_MOST_WAITING = 512  # chunks that a source may be ahead; then it waits


async def drive_async(session: Session, chunks: AsyncIterable[Chunk]) -> AsyncGenerator[Event, None]:
    """The same on an event loop: decoding runs in a thread of its own, and whatever arrives meanwhile is taken in at
    once afterwards."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Chunk | None] = asyncio.Queue(_MOST_WAITING)

    async def read() -> None:
        try:
            async for chunk in chunks:
                await waiting.put(chunk)
        finally:
            await waiting.put(None)

    with ThreadPoolExecutor(1, "sottovoce-stream") as pool:
        reader = asyncio.create_task(read())
        error: Exception | None = None
        try:
            ended = False
            while not ended:
                arrived = [await waiting.get()]
                while not waiting.empty():
                    arrived.append(waiting.get_nowait())
                ended = arrived[-1] is None
                for chunk in joined([one for one in arrived if one is not None]):
                    events, error = await loop.run_in_executor(pool, partial(_said, session.push, chunk))
                    for event in events:
                        yield event
                    if error is not None:
                        ended = True
                        break
            if not isinstance(error, EngineError):
                events, late = await loop.run_in_executor(pool, partial(_said, session.finish))
                for event in events:
                    yield event
                error = late or error
            if error is not None:
                raise error
            await reader  # raises what the source raised
        finally:
            reader.cancel()
            while not waiting.empty():
                waiting.get_nowait()  # room for a reader's last word
            await asyncio.gather(reader, return_exceptions=True)
            await loop.run_in_executor(pool, session.close)
            if close := getattr(chunks, "aclose", None):
                await close()


def _said(events: Callable[..., Iterable[Event]], *chunk: Chunk) -> tuple[list[Event], Exception | None]:
    """All events, and the error that ended them: what was said before it is not lost."""
    said: list[Event] = []
    try:
        for event in events(*chunk):
            said.append(event)
    except Exception as error:
        return said, error
    return said, None


def joined(chunks: list[Chunk]) -> list[Chunk]:
    """The same audio in fewer chunks: neighbouring arrays of one kind become one."""
    out: list[Chunk] = []
    for kind, alike in groupby(chunks, _kind):
        group = list(alike)
        out += group if kind is None or len(group) == 1 else [np.concatenate(group)]  # type: ignore[arg-type]
    return out


def _kind(chunk: Chunk) -> tuple[Any, ...] | None:
    """What arrays that can be joined have in common; None for everything else."""
    return (chunk.dtype, chunk.shape[1:]) if isinstance(chunk, np.ndarray) and chunk.ndim else None
