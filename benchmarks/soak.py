"""An hour of audio through one stream, as fast as it goes: memory and the cost of a step, minute by minute.

In a fresh process, so that nothing else is weighed. Audio arrives on a virtual clock, as in the compiler's
stream_clock.py, which keeps every event and step and so would grow by itself; here a minute leaves six numbers. The
recordings are repeated after a whole number of minutes: the same minute of each pass hears the same audio. Run as a
script it is that process: it takes one JSON argument and prints one JSON object. Linux only (/proc).
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from peers import Artifacts, Samples
from peers.live import create_live

from sottovoce.streaming.events import Committed
from sottovoce_compiler.report.stream_clock import SAMPLE_RATE, Session

PIECE = SAMPLE_RATE // 10  # samples that arrive at a time
MINUTE = 60 * SAMPLE_RATE
SETTLING = 2  # minutes after which memory is not supposed to grow
ENDS = 10  # minutes of which the beginning and the end are compared
PAUSES = (0.7, 2.0, 4.0)  # seconds of silence between recordings, in turn


@dataclass(frozen=True, slots=True)
class Minute:
    """What one minute of audio cost. Seconds; `rss_mb` (1e6 bytes) and `lag_s` are of its end."""

    rss_mb: float
    wall_s: float
    cpu_s: float
    max_step_s: float
    max_lag_s: float
    lag_s: float
    words: int


@dataclass(frozen=True, slots=True)
class Soak:
    """A whole run. Memory in MB (1e6 bytes) above what imported libraries and the recordings hold."""

    minutes: tuple[Minute, ...]
    minutes_a_pass: int
    loaded_mb: float
    peak_mb: float

    def to_json(self) -> Mapping[str, object]:
        """Everything, with growth worked out."""
        return {**asdict(self), "growth": growth(self.minutes, self.minutes_a_pass)}


@dataclass(frozen=True, slots=True)
class Job:
    """What the fresh process does."""

    system: str
    artifacts: Artifacts
    threads: int
    manifest: Path
    minutes: int

    def to_argument(self) -> str:
        """The job as one command line argument."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_argument(cls, text: str) -> "Job":
        """Inverse of `to_argument`."""
        fields = json.loads(text)
        return cls(
            fields["system"],
            Artifacts.from_json(fields["artifacts"]),
            fields["threads"],
            Path(fields["manifest"]),
            fields["minutes"],
        )


def growth(minutes: Sequence[Minute], minutes_a_pass: int) -> Mapping[str, float | None]:
    """How memory and cost change; None where the run is too short to say.

    `rss_mb_per_hour` is the slope of a line through all minutes after the first two. `same_audio` compares the last
    whole pass over the recordings with the second one: cost by its seconds, lag by each minute's longest.
    """
    settled = [minute.rss_mb for minute in minutes[SETTLING:]]
    slope = np.polyfit(np.arange(len(settled)) / 60, settled, 1)[0] if len(settled) >= ENDS else None
    first, last = minutes[:ENDS], minutes[-ENDS:]
    passes = [minutes[i : i + minutes_a_pass] for i in range(0, len(minutes) - minutes_a_pass + 1, minutes_a_pass)]
    second, final = (passes[1], passes[-1]) if len(passes) > 2 else (None, None)
    return {
        "rss_mb_per_hour": None if slope is None else float(slope),
        "rss_mb_span": max(settled) - min(settled) if settled else None,
        "first_minutes_rtf": _rtf(first) if len(minutes) >= 2 * ENDS else None,
        "last_minutes_rtf": _rtf(last) if len(minutes) >= 2 * ENDS else None,
        "first_minutes_max_lag_s": max(m.max_lag_s for m in first) if len(minutes) >= 2 * ENDS else None,
        "last_minutes_max_lag_s": max(m.max_lag_s for m in last) if len(minutes) >= 2 * ENDS else None,
        "same_audio_rss_change_mb": _mean_rss(final) - _mean_rss(second) if second and final else None,
        "same_audio_cost_ratio": _rtf(final) / _rtf(second) if second and final else None,
        "same_audio_lag_change_s": _mean_lag(final) - _mean_lag(second) if second and final else None,
    }


def _rtf(minutes: Sequence[Minute]) -> float:
    return statistics.fmean(minute.wall_s for minute in minutes) / 60


def _mean_rss(minutes: Sequence[Minute]) -> float:
    return statistics.fmean(minute.rss_mb for minute in minutes)


def _mean_lag(minutes: Sequence[Minute]) -> float:
    return statistics.fmean(minute.max_lag_s for minute in minutes)


class Tape:
    """Recordings with silences between them, again and again; a pass takes a whole number of minutes."""

    def __init__(self, recordings: Sequence[Samples]) -> None:
        pauses = [np.zeros(round(PAUSES[i % len(PAUSES)] * SAMPLE_RATE), np.float32) for i in range(len(recordings))]
        once = [part for pair in zip(recordings, pauses, strict=True) for part in pair]
        length = sum(part.size for part in once)
        rest = np.zeros(-length % MINUTE, np.float32)
        self.minutes_a_pass = (length + rest.size) // MINUTE
        self._parts: Iterator[Samples] = chain.from_iterable(repeat([*once, rest]))
        self._open = np.zeros(0, np.float32)

    def take(self, count: int) -> Samples:
        """The next `count` samples."""
        taken: list[Samples] = []
        while count:
            if not self._open.size:
                self._open = next(self._parts)
            taken.append(self._open[:count])
            self._open = self._open[taken[-1].size :]
            count -= taken[-1].size
        return np.concatenate(taken) if len(taken) != 1 else taken[0]


def soak(session: Session, tape: Tape, minutes: int) -> Iterator[Minute]:
    """Plays so many minutes to a stream, compute charged, and says after each what it was like."""
    now, taken = 0.0, 0
    steps: list[tuple[float, float]] = []  # wall, lag
    words, cpu_started = 0, time.process_time()
    while taken < minutes * MINUTE:
        now = max(now, (taken + PIECE) / SAMPLE_RATE)
        arrived = min(int(round(now * SAMPLE_RATE, 3) // PIECE) * PIECE, (taken // MINUTE + 1) * MINUTE)
        chunk, taken = tape.take(arrived - taken), arrived
        began = time.perf_counter()
        words += sum(len(event.words) for event in session.push(chunk) if isinstance(event, Committed))
        wall = time.perf_counter() - began
        now += wall
        steps.append((wall, now - taken / SAMPLE_RATE))
        if taken % MINUTE == 0:
            walls, lags = zip(*steps, strict=True)
            cpu = time.process_time()
            yield Minute(_rss_mb(), sum(walls), cpu - cpu_started, max(walls), max(lags), lags[-1], words)
            steps, words, cpu_started = [], 0, cpu


def measure(job: Job) -> Soak:
    """The job, in a fresh process. RuntimeError with its last line where it fails."""
    command = [sys.executable, __file__, job.to_argument()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job.system} failed in a fresh process: {done.stderr.strip().splitlines()[-1:]}")
    fields = json.loads(done.stdout.splitlines()[-1])
    return Soak(**fields | {"minutes": tuple(Minute(**minute) for minute in fields["minutes"])})


def run(job: Job) -> Soak:
    """Do the job in this process, which should have done nothing before."""
    from data import Recordings
    from footprint import forget_peak

    recordings = Recordings(job.manifest)
    # The long one first: it fills whatever buffers there are.
    tape = Tape([heard.samples for heard in (recordings.long(), *recordings.read_english())])
    system = create_live(job.system, job.artifacts, job.threads)
    forget_peak()
    before = _rss_mb()
    system.load()
    loaded = _rss_mb()
    session = system.session("en")
    minutes = tuple(soak(session, tape, job.minutes))
    return Soak(minutes, tape.minutes_a_pass, loaded - before, _peak_mb() - before)


def _rss_mb() -> float:
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE") / 1e6


def _peak_mb() -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(asdict(run(Job.from_argument(sys.argv[1])))))
