"""A stream in real time, on its own clock, while a busy neighbour takes half of the processor away for a while.

Knows a session and the wall clock; knows nothing of what is right in a text. Unlike the virtual clock of the compiler's
stream_clock.py, this one sees what is burnt while waiting for audio.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from peers import Samples

from sottovoce.streaming.events import Event
from sottovoce.streaming.sources.recording import Recording
from sottovoce_compiler.report.stream_clock import SAMPLE_RATE, Session, Stamped

CALM_SECONDS = 3.0  # for which the lag must be as before, to have recovered
WARMING_SECONDS = 2.0  # at the beginning, whose lag says nothing
_BUSY = "while True: pass"


@dataclass(frozen=True, slots=True)
class Theft:
    """When the neighbour is there, in seconds from the start."""

    start: float = 30.0
    end: float = 60.0


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind the audio the work was at `at`; seconds."""

    at: float
    behind: float


@dataclass(frozen=True, slots=True)
class PacedRun:
    """A stream as it was heard in real time; `theft` is when it was disturbed in fact, `cpu_seconds` of all threads."""

    events: tuple[Stamped, ...]
    lags: tuple[Lag, ...]
    seconds: float
    cpu_seconds: float
    theft: Theft | None

    def to_json(self, cores: int) -> Mapping[str, object]:
        """Lags second by second, and their summary before, during and after the theft."""
        found: dict[str, object] = {
            "seconds": self.seconds,
            "share_of_cores": self.cpu_seconds / self.seconds / cores,
            "lag": summary(self.lags),
            "lag_by_second": by_second(self.lags),
        }
        if self.theft is not None:
            found["theft"] = asdict(self.theft)
            found |= {f"lag_{name}": summary(part) for name, part in parts(self.lags, self.theft).items()}
            found["recovered_after_s"] = recovered_after(self.lags, self.theft)
        return found


class Thief:
    """One busy process a core, at our own priority, from `start` until `stop`."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        count = len(os.sched_getaffinity(0))
        self._processes = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []


def play_paced(session: Session, samples: Samples, theft: Theft | None = None) -> PacedRun:
    """Plays float32 (samples,) at 16 kHz to `session` as it would be spoken."""
    source = Recording(samples, SAMPLE_RATE)
    thief, took, left = Thief(), 0.0, 0.0
    events: list[Stamped] = []
    lags: list[Lag] = []
    began, cpu_began = time.monotonic(), time.process_time()

    def now() -> float:
        return time.monotonic() - began

    def keep(said: Iterable[Event]) -> None:
        events.extend(Stamped(now(), event) for event in said)
        lags.append(Lag(now(), now() - source.time))

    try:
        for chunk in source:
            keep(session.push(chunk.samples))
            if theft is not None and not took and now() >= theft.start:
                thief.start()
                took = now()
            if theft is not None and took and not left and now() >= theft.end:
                thief.stop()
                left = now()
        keep(session.finish())
    finally:
        thief.stop()
    happened = Theft(took, left or now()) if took else None
    cpu = time.process_time() - cpu_began
    return PacedRun(tuple(events), tuple(lags), samples.size / SAMPLE_RATE, cpu, happened)


def parts(lags: Sequence[Lag], theft: Theft) -> Mapping[str, Sequence[Lag]]:
    """Before, during and after the theft; the first seconds are left out."""
    return {
        "before": [lag for lag in lags if WARMING_SECONDS <= lag.at < theft.start],
        "during": [lag for lag in lags if theft.start <= lag.at < theft.end],
        "after": [lag for lag in lags if lag.at >= theft.end],
    }


def summary(lags: Sequence[Lag]) -> Mapping[str, float] | None:
    """None of nothing."""
    behind = [lag.behind for lag in lags]
    if not behind:
        return None
    return {"mean": statistics.fmean(behind), "p99": float(np.percentile(behind, 99)), "max": max(behind)}


def by_second(lags: Sequence[Lag]) -> Sequence[float | None]:
    """The longest lag of each second, None where nothing was done in it."""
    longest: dict[int, float] = {}
    for lag in lags:
        longest[int(lag.at)] = max(longest.get(int(lag.at), 0.0), lag.behind)
    return [round(longest[i], 3) if i in longest else None for i in range(max(longest, default=-1) + 1)]


def recovered_after(lags: Sequence[Lag], theft: Theft) -> float | None:
    """Seconds from the end of the theft until the lag stayed for a while at what it was at most before.

    None where it did not.
    """
    found = parts(lags, theft)
    before, after = found["before"], found["after"]
    if not before or not after:
        return None
    limit = max(lag.behind for lag in before)
    calm_from = theft.end
    for lag in after:
        if lag.behind > limit:
            calm_from = lag.at
        elif lag.at - calm_from >= CALM_SECONDS:
            return calm_from - theft.end
    return None
