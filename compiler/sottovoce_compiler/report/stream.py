"""The streaming scorecard: how right a stream is beside the same model with all the time in the world, how soon its
words appear and stay, and what the machine does for it.

Knows clips, the texts of both and the live runs. Does not know how either was made (stream_run.py), so that a peer is
scored by the same code. Delays are pooled over all words and errors summed over all clips; nothing averages averages.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from sottovoce_compiler.report.dataset import Clip
from sottovoce_compiler.report.evaluate import ClipResult, Evaluation, Failure, Scores, judge
from sottovoce_compiler.report.hypothesis import Hypothesis
from sottovoce_compiler.report.score import ErrorCounts
from sottovoce_compiler.report.stream_clock import LiveRun
from sottovoce_compiler.report.stream_score import Spread, StreamScore, WordEnd, score_events, text_of
from sottovoce_compiler.report.table import Table

_DECIMALS = 4  # of rates
_TIME_DECIMALS = 3  # of seconds


@dataclass(frozen=True, slots=True)
class Offline:
    """What the same model says of a whole clip, and when its words end; seconds."""

    text: str
    ends: tuple[WordEnd, ...]


@dataclass(frozen=True, slots=True)
class StreamClip:
    """One clip: the live run, what is wrong in its text and in the offline one, and when its words came."""

    run: LiveRun
    streamed: ClipResult
    offline: ClipResult
    score: StreamScore

    @property
    def clip(self) -> Clip:
        """The recording."""
        return self.streamed.clip


def score_clip(clip: Clip, run: LiveRun, offline: Offline) -> StreamClip:
    """Scores a run beside the offline text, whose word ends stand for when the words were spoken."""
    streamed, whole = (judge(clip, Hypothesis(text)) for text in (text_of(run.events), offline.text))
    score = score_events(run.events, offline.ends, clip.language)
    return StreamClip(run, streamed, whole, score if clip.is_speech else StreamScore())


@dataclass(frozen=True, slots=True)
class Machine:
    """On what a charged run was made: facts (processor, cores, versions), threads (None: the runtime's choice), and
    how much the process grew at its peak, in 10^6 bytes, None where that says nothing."""

    facts: Mapping[str, Any]
    threads: int | None
    peak_mb: float | None

    @property
    def cores(self) -> int:
        """Cores that the process may use."""
        return int(self.facts.get("cores") or 1)


@dataclass(frozen=True)
class StreamScorecard:
    """All that was measured of one stream on one dataset. `machine` is None where compute was not charged."""

    dataset: str
    dataset_sha256: str
    clips: tuple[StreamClip, ...]
    settings: Mapping[str, Any]
    machine: Machine | None
    failures: tuple[Failure, ...] = ()
    word_ends: str = "the same bundle's transcription of the whole clip"
    chunk_seconds: float = field(default=0.1)

    @cached_property
    def score(self) -> StreamScore:
        """Over the words of all clips."""
        return sum((clip.score for clip in self.clips), StreamScore())

    @cached_property
    def streamed(self) -> Scores:
        """Errors of what was committed."""
        return Scores(tuple(clip.streamed for clip in self.clips))

    @cached_property
    def offline(self) -> Scores:
        """Errors of the same clips transcribed as a whole."""
        return Scores(tuple(clip.offline for clip in self.clips))

    @property
    def evaluations(self) -> tuple[Evaluation, Evaluation]:
        """The offline text and the stream, as a gate compares them. A clip that failed is the stream's."""
        offline = Evaluation(self.dataset, self.dataset_sha256, self.offline.results)
        return offline, Evaluation(self.dataset, self.dataset_sha256, self.streamed.results, self.failures)

    @property
    def seconds(self) -> float:
        """Audio played."""
        return sum(clip.run.audio_seconds for clip in self.clips)

    @property
    def rtf(self) -> float | None:
        """Seconds of work a second of audio; None of nothing."""
        return sum(clip.run.wall_seconds for clip in self.clips) / self.seconds if self.seconds else None

    @property
    def decodings_per_second(self) -> float | None:
        """How often the model was asked a second of audio; None where a run does not tell."""
        counts = [clip.run.decodings for clip in self.clips if clip.run.decodings is not None]
        return sum(counts) / self.seconds if counts and len(counts) == len(self.clips) else None

    def cores_busy(self, *, speech: bool) -> float | None:
        """Processor seconds of all threads a second of audio, where somebody spoke or where nobody did."""
        seconds = sum(clip.run.seconds(speech=speech) for clip in self.clips)
        return sum(clip.run.cpu_seconds(speech=speech) for clip in self.clips) / seconds if seconds else None

    @property
    def title(self) -> str:
        """Under which conditions this was measured."""
        charged = "compute charged" if self.machine else "compute not charged"
        return f"streamed, {charged}, {describe(self.settings)}"

    def to_json(self) -> dict[str, Any]:
        """JSON values, rates as fractions rounded to four decimals, seconds to three.

        Delays have other names where compute was not charged, so that nobody takes one for the other.
        """
        suffix = "_s" if self.machine else "_without_compute_s"
        matched = {"from": self.word_ends, "matched": len(self.score.timings), "words": self.score.words}
        return {
            "compute": "charged" if self.machine else "not charged",
            "settings": dict(self.settings),
            "chunk_s": self.chunk_seconds,
            "dataset": {
                "name": self.dataset,
                "sha256": self.dataset_sha256,
                "clips": len(self.clips) + len(self.failures),
                "seconds": round(self.seconds, _TIME_DECIMALS),
            },
            **_errors_json(self.streamed, self.offline),
            "word_ends": matched,
            f"word_to_commit{suffix}": _spread_json(self.score.commit_delay),
            f"word_to_first_partial{suffix}": _spread_json(self.score.shown_delay),
            "rewritten_words_per_word": _rounded(self.score.rewritten_per_word),
            "decodings_per_s": _rounded(self.decodings_per_second),
            **({} if self.machine is None else self._work_json(self.machine)),
            "failures": [{"clip": failure.clip.name, "error": failure.error} for failure in self.failures],
        }

    def _work_json(self, machine: Machine) -> dict[str, Any]:
        busy = {name: self.cores_busy(speech=name == "speech") for name in ("speech", "silence")}
        shares = {name: None if value is None else value / machine.cores for name, value in busy.items()}
        return {
            "rtf": _rounded(self.rtf),
            "cores_busy": {name: _rounded(value) for name, value in busy.items()},
            "share_of_cores": {name: _rounded(value) for name, value in shares.items()},
            "max_lag_s": round(max((clip.run.max_lag for clip in self.clips), default=0.0), _TIME_DECIMALS),
            "end_lag_s": round(max((clip.run.end_lag for clip in self.clips), default=0.0), _TIME_DECIMALS),
            "peak_mb": machine.peak_mb,
            "threads": machine.threads,
            "machine": dict(machine.facts),
        }

    def tables(self) -> list[Table]:
        """For people: errors, delays, work."""
        delays = f"seconds, over {len(self.score.timings)} of {self.score.words} words"
        tables = [
            Table(self.title, ("", "streamed", "offline"), tuple(_error_rows(self.streamed, self.offline))),
            Table(delays, ("from a word's end", "mean", "p50", "p90", "p99"), tuple(self._delay_rows())),
            Table("", ("", "value"), tuple(self._work_rows())),
        ]
        return [table for table in tables if table.rows]

    def _delay_rows(self) -> Iterator[tuple[str, ...]]:
        for name, found in (
            ("to its commit", self.score.commit_delay),
            ("to its first showing", self.score.shown_delay),
        ):
            if found is not None:
                yield (name, *(f"{value:.2f}" for value in (found.mean, found.p50, found.p90, found.p99)))

    def _work_rows(self) -> Iterator[tuple[str, str]]:
        if self.score.rewritten_per_word is not None:
            yield "rewritten words a word", f"{self.score.rewritten_per_word:.2f}"
        if self.decodings_per_second is not None:
            yield "decodings a second", f"{self.decodings_per_second:.2f}"
        if self.machine is None:
            return
        cores = self.machine.cores
        yield "real-time factor", f"{self.rtf or 0:.3f}"
        for what, speech in (("while somebody speaks", True), ("in silence", False)):
            if (busy := self.cores_busy(speech=speech)) is not None:
                yield f"cores used {what}", f"{busy:.2f} of {cores} ({busy / cores:.1%})"
        yield "longest lag", f"{max((clip.run.max_lag for clip in self.clips), default=0.0):.2f} s"
        yield "lag at the end", f"{max((clip.run.end_lag for clip in self.clips), default=0.0):.2f} s at most"
        if self.machine.peak_mb is not None:
            yield "peak memory", f"{self.machine.peak_mb:.0f} MB above the imports, in this process"


def describe(settings: Mapping[str, Any]) -> str:
    """Settings on one line, those without a value left out."""
    given = ((name, f"{value:g}" if isinstance(value, float) else value) for name, value in settings.items())
    return ", ".join(f"{name} {value}" for name, value in given if value is not None)


def _errors_json(streamed: Scores, offline: Scores) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, unit in (("wer", "words"), ("cer", "characters")):
        ours, whole = getattr(streamed, unit), getattr(offline, unit)
        increase = None if ours.rate is None or whole.rate is None else ours.rate - whole.rate
        found |= {
            name: _rounded(ours.rate),
            f"offline_{name}": _rounded(whole.rate),
            f"{name}_increase": _rounded(increase),
            unit: _counts_json(ours),
            f"offline_{unit}": _counts_json(whole),
        }
    found["non_speech"] = {
        "minutes": round(streamed.silent_minutes, _DECIMALS),
        "invented_words": streamed.invented,
        "offline_invented_words": offline.invented,
    }
    return found


def _error_rows(streamed: Scores, offline: Scores) -> Iterator[tuple[str, str, str]]:
    for name, unit in (("word errors", "words"), ("character errors", "characters")):
        ours, whole = getattr(streamed, unit), getattr(offline, unit)
        if ours.rate is not None and whole.rate is not None:
            points = 100 * (ours.rate - whole.rate)
            yield name, f"{_cell(ours)}, {points:+.1f} points", _cell(whole)
    if streamed.silent_minutes:
        seconds = streamed.silent_minutes * 60
        yield f"words invented in {seconds:.0f} s", str(streamed.invented), str(offline.invented)


def _cell(counts: ErrorCounts) -> str:
    return f"{counts.rate or 0:.1%} ({counts.errors} of {counts.reference})"


def _counts_json(counts: ErrorCounts) -> dict[str, int]:
    return asdict(counts)


def _spread_json(found: Spread | None) -> dict[str, float] | None:
    return None if found is None else {name: round(value, _TIME_DECIMALS) for name, value in asdict(found).items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)
