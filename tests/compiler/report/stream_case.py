"""Sessions that do what they are told at a stated cost, and runs that are written down by hand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sottovoce.streaming.events import Committed, Event, Partial, SpeechEnded, SpeechStarted
from sottovoce.types import Word
from sottovoce_compiler.report.dataset import Clip
from sottovoce_compiler.report.stream import Machine, Offline, StreamClip, StreamScorecard, score_clip
from sottovoce_compiler.report.stream_clock import SAMPLE_RATE, LiveRun, Samples, Stamped, Step

SETTINGS = {"step": 0.3, "hold_back": 0.5, "initial_prompt": None}
OFFLINE = Offline("And so, my fellow", ((" And", 1.0), (" so,", 1.5), (" my", 2.0), (" fellow", 2.5)))


@dataclass
class Work:
    """A clock that only work moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Costly:
    """Takes `costs[i]` seconds for the i-th chunk and `cost` for the others; says `says[i]` when half of it is done."""

    work: Work
    cost: float = 0.0
    costs: Mapping[int, float] = field(default_factory=dict)
    says: Mapping[int, Sequence[Event]] = field(default_factory=dict)
    chunks: list[int] = field(default_factory=list)
    finished: bool = False

    def push(self, chunk: Samples) -> Iterator[Event]:
        number = len(self.chunks)
        self.chunks.append(chunk.size)
        cost = self.costs.get(number, self.cost)
        self.work.now += cost / 2
        yield from self.says.get(number, ())
        self.work.now += cost / 2

    def finish(self) -> Iterator[Event]:
        self.finished = True
        yield from self.says.get(-1, ())

    def close(self) -> None:
        pass


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def partial(text: str) -> Partial:
    return Partial(text, 0.0)


def committed(text: str) -> Committed:
    return Committed(text, (Word(0.0, 0.0, text, 1.0),), "en")


def at(*stamped: tuple[float, Event]) -> tuple[Stamped, ...]:
    return tuple(Stamped(time, event) for time, event in stamped)


EVENTS = at(
    (0.8, SpeechStarted(0.5)),
    (1.2, partial(" And so")),  # "so" before it is over
    (2.0, committed(" And so,")),
    (2.1, partial(" my fellow")),
    (3.0, committed(" my fellow")),
    (3.0, SpeechEnded(2.6)),
)
STEPS = (
    Step(audio=0.5, wall=0.01, cpu=0.01, lag=0.01, speech=False),
    Step(audio=2.0, wall=0.4, cpu=0.8, lag=0.4, speech=True),
    Step(audio=1.5, wall=0.01, cpu=0.02, lag=0.01, speech=False),
    Step(audio=0.0, wall=0.0, cpu=0.0, lag=0.0, speech=False),
)


def clip(name: str, text: str, language: str | None = "en", seconds: float = 4.0, kind: str = "speech") -> Clip:
    return Clip(name, Path(name), text, language, seconds, kind)


def scored(text: str = "and so my fellow", events: tuple[Stamped, ...] = EVENTS) -> StreamClip:
    return score_clip(clip("a.wav", text), LiveRun(events, STEPS, 4.0), OFFLINE)


def card(*clips: StreamClip, charged: bool = True) -> StreamScorecard:
    machine = Machine({"cpu": "a processor", "cores": 2}, 2, 120.5) if charged else None
    return StreamScorecard("set.jsonl", "0" * 64, clips, SETTINGS, machine)
