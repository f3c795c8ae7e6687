"""Clocks: the same work on every system, one after the other, round after round.

Interleaving spreads what the machine does meanwhile over all systems. A pause before each measurement lets
the thread pool of the previous system stop spinning: otherwise it would take a core from the next.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from peers import BatchingSystem, Parts, Samples, System, Transcript

Result = TypeVar("Result")

FORCED_TOKENS = 64  # steps over which the time of one token is averaged


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall seconds of each repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure that tables quote."""
        return statistics.median(self.seconds)

    def to_json(self) -> Mapping[str, object]:
        """All repetitions with median and minimum."""
        return {"median_s": self.median, "min_s": min(self.seconds), "seconds": list(self.seconds)}


@dataclass(frozen=True, slots=True)
class BatchTiming:
    """The same clips one by one and in batches; `differing` names the clips whose two texts differ."""

    clips: int
    audio_s: float
    one_by_one: Timing
    batched: Timing
    differing: tuple[str, ...]

    @property
    def gain(self) -> float:
        """Throughput in batches over throughput one by one."""
        return self.one_by_one.median / self.batched.median

    def to_json(self) -> Mapping[str, object]:
        """All repetitions, the gain, and what differs."""
        return {
            "clips": self.clips,
            "audio_s": self.audio_s,
            "one_by_one": self.one_by_one.to_json(),
            "batched": self.batched.to_json(),
            "gain": self.gain,
            "differing": list(self.differing),
        }


def rounds(
    systems: Mapping[str, System], work: Callable[[System], Result], repetitions: int, rest_s: float
) -> dict[str, list[tuple[float, Result]]]:
    """Seconds and result of `work` for each repetition of each system, systems taking turns."""
    results: dict[str, list[tuple[float, Result]]] = {name: [] for name in systems}
    for _ in range(repetitions):
        for name, system in systems.items():
            time.sleep(rest_s)
            results[name].append(_timed(lambda system=system: work(system)))  # type: ignore[misc]
    return results


def time_clip(
    systems: Mapping[str, System], samples: Samples, language: str, repetitions: int, rest_s: float
) -> dict[str, tuple[Timing, Transcript]]:
    """Time to the whole text, one uncounted round first; the text is the last repetition's."""
    for system in systems.values():
        system.transcribe(samples, language)
    return time_warm(systems, samples, language, repetitions, rest_s)


def time_warm(
    systems: Mapping[str, System], samples: Samples, language: str, repetitions: int, rest_s: float
) -> dict[str, tuple[Timing, Transcript]]:
    """As `time_clip` for systems that have already run: without the uncounted round."""
    measured = rounds(systems, lambda system: system.transcribe(samples, language), repetitions, rest_s)
    return {name: (Timing(tuple(s for s, _ in runs)), runs[-1][1]) for name, runs in measured.items()}


def time_parts(
    systems: Mapping[str, System], samples: Samples, repetitions: int, rest_s: float
) -> dict[str, Parts | None]:
    """Median encoder pass and median token of each system that exposes them."""
    measured = rounds(systems, lambda system: system.parts(samples, FORCED_TOKENS), repetitions, rest_s)
    return {name: _median_parts([parts for _, parts in runs]) for name, runs in measured.items()}


def _median_parts(runs: Sequence[Parts | None]) -> Parts | None:
    known = [asdict(parts) for parts in runs if parts is not None]
    return Parts(**{key: statistics.median(run[key] for run in known) for key in known[0]}) if known else None


def time_batches(system: BatchingSystem, clips: Mapping[str, Samples], repetitions: int, rest_s: float) -> BatchTiming:
    """English clips, by name, through `transcribe` in turn and through `transcribe_batch` at once."""
    audio = list(clips.values())
    single: list[float] = []
    batched: list[float] = []
    for repetition in range(repetitions + 1):
        time.sleep(rest_s)
        single_s, alone = _timed(lambda: [system.transcribe(samples, "en") for samples in audio])
        time.sleep(rest_s)
        batched_s, together = _timed(lambda: system.transcribe_batch(audio, "en"))
        if repetition:  # the first warms both up
            single.append(single_s)
            batched.append(batched_s)
    differing = [name for name, a, b in zip(clips, alone, together, strict=True) if a.text != b.text]
    audio_s = sum(samples.size for samples in audio) / 16_000
    return BatchTiming(len(audio), audio_s, Timing(tuple(single)), Timing(tuple(batched)), tuple(differing))


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result
