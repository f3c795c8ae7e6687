"""A session and a source brought together in one thread (asynchronous.py does it for asyncio).

Knows when to read and what to do when reading fails: what was said is settled and handed over first. Knows nothing of
what a session does with audio.
"""

from collections.abc import Generator, Iterable
from typing import Any, Protocol

from sottovoce.errors import EngineError
from sottovoce.streaming.chunks import Chunk
from sottovoce.streaming.events import Event


class Session(Protocol):
    """What is driven; see `streaming.session.StreamSession`."""

    def push(self, chunk: Chunk) -> Iterable[Event]: ...

    def finish(self) -> Iterable[Event]: ...

    def close(self) -> None: ...


def drive(session: Session, chunks: Iterable[Chunk]) -> Generator[Event, None, None]:
    """Events of a source, pulled: while nobody asks for the next event, nothing is read.

    What the source raises, KeyboardInterrupt included, is raised here after everything heard before is settled.
    """
    events = _driven(session, chunks)
    next(events)  # into its `try`: closed before its first event, it gives everything back too
    return events


def _driven(session: Session, chunks: Iterable[Chunk]) -> Generator[Any, None, None]:
    try:
        yield
        try:
            for chunk in chunks:
                yield from session.push(chunk)
        except (GeneratorExit, EngineError):
            raise
        except BaseException:
            yield from session.finish()
            raise
        yield from session.finish()
    finally:
        session.close()
        if close := getattr(chunks, "close", None):
            close()
