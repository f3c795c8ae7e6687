"""Audio between the thread it arrives in and the one that listens: in order, and never more than so many seconds.

Knows arrays, rates and time. Knows nothing of where audio comes from.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sottovoce.streaming.chunks import AudioChunk, AudioGap

LIMIT_SECONDS = 30.0
Overflow = Literal["wait", "drop"]

_POLL = 0.5  # seconds; a wait without end cannot be interrupted on Windows
_JOINED = 0.05  # seconds of audio up to which small arrays are kept as one


class LiveQueue:
    """At most `limit` seconds of audio. Where more arrives, "wait" holds the producer back, and "drop" lets the oldest
    audio go and hands an `AudioGap` over in its place.

    One producer and one consumer. A single array longer than the limit is taken when nothing else is there ("wait"), or
    cut to its end ("drop").
    """

    def __init__(self, limit: float = LIMIT_SECONDS, overflow: Overflow = "wait") -> None:
        self._limit, self._overflow = limit, overflow
        self._items: deque[AudioChunk | AudioGap] = deque()
        self._seconds = 0.0  # of audio in _items; gaps take no room
        self._ended = False
        self._error: BaseException | None = None
        # Its lock is re-entrant, so that a signal handler may end a queue that its own thread is waiting on.
        self._changed = threading.Condition()

    @property
    def ended(self) -> bool:
        """Whether nothing more is taken in."""
        return self._ended

    def put(self, samples: NDArray[Any], sample_rate: int) -> bool:
        """Takes samples (n,) or (n, channels) at `sample_rate` Hz, which must not change afterwards. False once the
        queue has ended."""
        chunk = AudioChunk(samples, sample_rate)
        with self._changed:
            if self._overflow == "wait":
                self._changed.wait_for(lambda: self._ended or self._fits(chunk))
            if self._ended:
                return False
            if self._overflow == "drop":
                chunk = self._make_room(chunk)
            self._append(chunk)
            self._changed.notify_all()
            return True

    def lose(self, seconds: float) -> None:
        """Audio of this length was lost before it came here."""
        with self._changed:
            if not self._ended and seconds > 0:
                self._items.append(AudioGap(seconds))
                self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """The producer is done. `error` is raised in the consumer, after what is queued."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
                self._changed.notify_all()

    def close(self) -> None:
        """Ends both sides and forgets what is queued."""
        with self._changed:
            self._ended, self._error = True, None
            self._items.clear()
            self._seconds = 0.0
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> AudioChunk | AudioGap | None:
        """All that is queued up to the next change of rate or kind, as one; None if nothing comes within `timeout`
        seconds, or ever. Raises what the producer ended with."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._ended, timeout)
            if self._items:
                taken = self._merged()
                self._changed.notify_all()
                return taken
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AudioChunk | AudioGap:
        while True:
            taken = self.take(_POLL)
            if taken is not None:
                return taken
            if self._ended:
                raise StopIteration

    def _fits(self, chunk: AudioChunk) -> bool:
        return not self._seconds or self._seconds + _seconds(chunk) <= self._limit

    def _make_room(self, chunk: AudioChunk) -> AudioChunk:
        """Lets the oldest go; what is lost stands as one gap at the head."""
        lost = 0.0
        while self._items and self._seconds + _seconds(chunk) > self._limit:
            oldest = self._items.popleft()
            if isinstance(oldest, AudioChunk):
                self._seconds -= _seconds(oldest)
                lost += _seconds(oldest)
            else:
                lost += oldest.seconds
        too_many = len(chunk.samples) - int(self._limit * chunk.sample_rate)
        if too_many > 0:
            lost += too_many / chunk.sample_rate
            chunk = AudioChunk(chunk.samples[too_many:], chunk.sample_rate)
        if lost:
            self._items.appendleft(AudioGap(lost))
        return chunk

    def _append(self, chunk: AudioChunk) -> None:
        """Puts a small array onto the last one, so that arrays of one sample do not become half a million objects."""
        self._seconds += _seconds(chunk)
        last = self._items[-1] if self._items else None
        if isinstance(last, AudioChunk) and _alike(last, chunk) and _seconds(last) < _JOINED:
            chunk = _joined([last, chunk])
            self._items.pop()
        if len(chunk.samples):
            self._items.append(chunk)

    def _merged(self) -> AudioChunk | AudioGap:
        first = self._items.popleft()
        if isinstance(first, AudioGap):
            return AudioGap(first.seconds + sum(gap.seconds for gap in self._gaps()))
        chunks = [first, *self._like(first)]
        # Rounding must not add up over a day.
        self._seconds = self._seconds - sum(map(_seconds, chunks)) if self._items else 0.0
        return _joined(chunks)

    def _gaps(self) -> Iterator[AudioGap]:
        while self._items and isinstance(self._items[0], AudioGap):
            gap = self._items.popleft()
            assert isinstance(gap, AudioGap)
            yield gap

    def _like(self, first: AudioChunk) -> Iterator[AudioChunk]:
        while self._items and isinstance(chunk := self._items[0], AudioChunk) and _alike(first, chunk):
            self._items.popleft()
            yield chunk


def _seconds(chunk: AudioChunk) -> float:
    return len(chunk.samples) / chunk.sample_rate


def _alike(a: AudioChunk, b: AudioChunk) -> bool:
    same_kind = a.samples.dtype == b.samples.dtype and a.samples.shape[1:] == b.samples.shape[1:]
    return same_kind and a.sample_rate == b.sample_rate


def _joined(chunks: list[AudioChunk]) -> AudioChunk:
    if len(chunks) == 1:
        return chunks[0]
    return AudioChunk(np.concatenate([chunk.samples for chunk in chunks]), chunks[0].sample_rate)
