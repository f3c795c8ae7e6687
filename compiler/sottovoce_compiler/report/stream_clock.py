"""A recording played to a stream as if it were spoken now: what is said when, on a clock of its own.

Knows when audio arrives and what work costs. Does not know what a word is, nor how anything is heard: any `Session`
will do, a peer's as well. Audio arrives in pieces, in real time on a virtual clock; whatever has arrived by then is
handed over as one chunk; the work on it moves the clock on. So compute is charged: a machine that is too slow falls
behind here as it would live, with fewer and larger chunks, and an hour of audio still takes only as long as the work.

The one thing that this leaves out is the wait for audio: processor time burnt while waiting, as by threads that
spin, is not seen here.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce.streaming.events import Event, SpeechEnded, SpeechStarted

SAMPLE_RATE = 16_000  # Hz
CHUNK_SECONDS = 0.1  # what microphones commonly hand over at a time

Samples = NDArray[np.float32]
Clock = Callable[[], float]  # seconds from some moment


class Session(Protocol):
    """A stream without threads and clocks: audio in, events out as soon as they are known."""

    def push(self, chunk: Samples, /) -> Iterable[Event]:
        """Takes in float32 (samples,) at 16 kHz, all of which has just arrived."""
        ...

    def finish(self) -> Iterable[Event]:
        """Says what is left: the audio has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event and when it was known: `at` in seconds of the virtual clock, on which audio time t arrives at t."""

    at: float
    event: Event


@dataclass(frozen=True, slots=True)
class Step:
    """The work on one chunk; seconds. `audio` is its length (0 for the end of the stream), `lag` how far the clock is
    past the chunk's last sample when the work is done, `speech` whether somebody was speaking in it."""

    audio: float
    wall: float
    cpu: float
    lag: float
    speech: bool


@dataclass(frozen=True)
class LiveRun:
    """A recording as it was heard live: events in order, the work of each step, and the recording's length.

    `decodings` is how often the model was asked, the same on every machine where compute is free; None where unknown.
    """

    events: tuple[Stamped, ...]
    steps: tuple[Step, ...]
    audio_seconds: float
    decodings: int | None = None

    @cached_property
    def wall_seconds(self) -> float:
        """Work, as the charged clock counts it; 0 where compute is free."""
        return sum(step.wall for step in self.steps)

    @cached_property
    def max_lag(self) -> float:
        """The longest that audio waited until the work on it was done."""
        return max((step.lag for step in self.steps), default=0.0)

    @property
    def end_lag(self) -> float:
        """From the end of the audio until everything was said."""
        return self.steps[-1].lag if self.steps else 0.0

    def cpu_seconds(self, *, speech: bool) -> float:
        """Processor time of all threads while somebody spoke, or while nobody did."""
        return sum(step.cpu for step in self.steps if step.speech == speech)

    def seconds(self, *, speech: bool) -> float:
        """Audio in which somebody spoke, or nobody did."""
        return sum(step.audio for step in self.steps if step.speech == speech)


def no_time() -> float:
    """A clock on which work takes no time: what is left is what the policy waits for."""
    return 0.0


def play(
    session: Session,
    samples: Samples,
    chunk_seconds: float = CHUNK_SECONDS,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> LiveRun:
    """Plays float32 (samples,) at 16 kHz to `session` in real time on a virtual clock, and charges what `clock` says
    the work took: `no_time` for nothing.
    """
    player = _Player(clock, cpu_clock if clock is not no_time else no_time)
    piece = max(1, round(chunk_seconds * SAMPLE_RATE))
    taken = 0
    while taken < samples.size:
        player.wait(min(taken + piece, samples.size) / SAMPLE_RATE)
        arrived = player.arrived(piece, samples.size)
        player.work(session.push(samples[taken:arrived]), arrived / SAMPLE_RATE, (arrived - taken) / SAMPLE_RATE)
        taken = arrived
    seconds = samples.size / SAMPLE_RATE
    player.work(session.finish(), seconds, 0.0)
    return LiveRun(tuple(player.events), tuple(player.steps), seconds)


class _Player:
    """The virtual clock, and what happened on it so far."""

    def __init__(self, clock: Clock, cpu_clock: Clock) -> None:
        self._clock, self._cpu_clock = clock, cpu_clock
        self._now = 0.0
        self._speech = False
        self.events: list[Stamped] = []
        self.steps: list[Step] = []

    def wait(self, until: float) -> None:
        self._now = max(self._now, until)

    def arrived(self, piece: int, size: int) -> int:
        """Samples that have come in by now: whole pieces, or everything."""
        samples = round(self._now * SAMPLE_RATE, 3)  # rounded, as 0.3 * 16000 may be a hair below a piece
        return size if samples >= size else int(samples // piece) * piece

    def work(self, events: Iterable[Event], end: float, audio: float) -> None:
        """Everything that is said of a chunk which ends at `end` seconds, each event at its own time."""
        started, cpu_started = self._clock(), self._cpu_clock()
        speech = self._speech
        for event in events:
            self.events.append(Stamped(self._now + self._clock() - started, event))
            if isinstance(event, SpeechStarted):
                speech = self._speech = True
            elif isinstance(event, SpeechEnded):
                self._speech = False
        wall, cpu = self._clock() - started, self._cpu_clock() - cpu_started
        self._now += wall
        self.steps.append(Step(audio, wall, cpu, self._now - end, speech))
