"""A recording as if it were live: at the pace at which it was spoken, or as fast as it is taken.

Knows samples and clocks. Knows nothing of files.
"""

import time
from collections.abc import Callable
from typing import Any, Self

from numpy.typing import NDArray

from sottovoce.streaming.chunks import AudioChunk

CHUNK_SECONDS = 0.1


class Recording:
    """Samples (n,) or (n, channels) at `sample_rate` Hz, in chunks of at least `chunk_seconds`.

    With `pace`, a chunk is handed over when its last sample would have been spoken, counted from the first `next`, and
    holds everything that would have arrived by then; without it, every chunk is `chunk_seconds` long. `clock` and
    `sleep` are in seconds.
    """

    def __init__(
        self,
        samples: NDArray[Any],
        sample_rate: int,
        chunk_seconds: float = CHUNK_SECONDS,
        *,
        pace: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._samples, self._rate, self._pace = samples, sample_rate, pace
        self._step = max(1, round(chunk_seconds * sample_rate))
        self._clock, self._sleep = clock, sleep
        self._begun: float | None = None
        self._at = 0

    @property
    def duration(self) -> float:
        """Seconds of all that is handed over; after `stop`, of what has been."""
        return len(self._samples) / self._rate

    @property
    def time(self) -> float:
        """Seconds handed over."""
        return self._at / self._rate

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AudioChunk:
        if self._at >= len(self._samples):
            raise StopIteration
        due = min(self._at + self._step, len(self._samples))
        start, self._at = self._at, self._wait_for(due) if self._pace else due
        return AudioChunk(self._samples[start : self._at], self._rate)

    def stop(self) -> None:
        """Hands nothing more over."""
        self._samples = self._samples[: self._at]

    def close(self) -> None:
        """The same: a recording holds nothing open."""
        self.stop()

    def _wait_for(self, due: int) -> int:
        """How many samples have been spoken, at least `due`, once that is so."""
        if self._begun is None:
            self._begun = self._clock()
        while (spoken := int((self._clock() - self._begun) * self._rate + 0.5)) < due:
            self._sleep((due - spoken) / self._rate)
        return min(spoken, len(self._samples))
