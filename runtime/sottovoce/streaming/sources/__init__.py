"""Where live audio comes from: a microphone, a pipe, or a recording played as if it were live.

Each source is an iterator that hands over, per `next`, everything that has arrived since the one before, so that a
machine that is late makes fewer and larger steps. None knows what is done with its audio. The modules are imported by
those who need them: microphone.py, pipe.py, recording.py.
"""

from typing import Protocol, Self

from sottovoce.streaming.chunks import AudioChunk, AudioGap


class LiveSource(Protocol):
    """What every source here is."""

    def __iter__(self) -> Self: ...

    def __next__(self) -> AudioChunk | AudioGap:
        """What has arrived; waits for it where there is nothing yet."""
        ...

    def stop(self) -> None:
        """Takes in nothing more: what has arrived is still handed over, then the iterator ends. May be called from a
        signal handler or another thread."""
        ...

    def close(self) -> None:
        """Ends it at once and gives everything back; may be called at any moment and again."""
        ...
