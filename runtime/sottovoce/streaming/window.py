"""The audio that may still be decoded: a bounded stretch that grows at its end and is let go at its start.

Knows samples and their places in the stream, nothing else.
"""

import numpy as np
from numpy.typing import NDArray

from sottovoce.vad import SAMPLE_RATE

Float = NDArray[np.float32]


class AudioWindow:
    """Samples `start` to `end` of the stream, never more than `limit` of them: the oldest go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._store = np.zeros(2 * limit, np.float32)  # room to append without moving what is there each time
        self._first = self._last = 0
        self.end = 0

    @property
    def start(self) -> int:
        return self.end - (self._last - self._first)

    @property
    def samples(self) -> Float:
        """(n,) float32 at 16 kHz; a view, valid until the next call that changes the window."""
        return self._store[self._first : self._last]

    @property
    def seconds(self) -> float:
        return (self._last - self._first) / SAMPLE_RATE

    def append(self, samples: Float) -> None:
        """Samples (n,) that follow the window's end."""
        kept = samples[-self._limit :]
        if self._last + kept.size > self._store.size:
            there = self._last - self._first
            self._store[:there] = self._store[self._first : self._last].copy()
            self._first, self._last = 0, there
        self._store[self._last : self._last + kept.size] = kept
        self._last += kept.size
        self._first = max(self._first, self._last - self._limit)
        self.end += samples.size

    def drop_before(self, sample: int) -> None:
        """Let go of what lies before a place in the stream."""
        self._first = min(max(self._first, self._last - (self.end - sample)), self._last)

    def skip(self, samples: int) -> None:
        """Everything is let go, and the stream goes on `samples` later."""
        self._first = self._last = 0
        self.end += samples
