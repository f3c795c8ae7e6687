"""Whether an artifact is as good as its source, and its stream as good as its offline text: the same data, the same
counting, and limits on what may be lost.

Knows pairs of evaluations and the limits of a target or a command line. Fails closed: whatever keeps a comparison
from being made (a clip that failed, no data, a number that is not one) is a reason not to pass. Point values
are compared, not intervals: on a small set both intervals are wide, and a limit that waits for certainty
would let anything through.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sottovoce.errors import InputError, SottovoceError
from sottovoce_compiler.report.evaluate import ClipResult, Evaluation, Scores
from sottovoce_compiler.report.score import ErrorCounts
from sottovoce_compiler.report.table import Table

SLACK = 1e-9  # of floating-point division; no count can make a difference this small
TEXT_SHOWN = 60  # characters of a transcript in the table of losses


class Verdict(Protocol):
    """What a gate decided, and the tables that show why."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Everything that speaks against the artifact; empty where the gate held."""
        ...

    def tables(self) -> Sequence[Table]: ...


class GateError(SottovoceError):
    """The artifact is worse than its gate allows; the message has the reasons, `result` the tables."""

    def __init__(self, result: "Verdict") -> None:
        super().__init__(f"the gate does not hold: {'; '.join(result.reasons)}")
        self.result = result


@dataclass(frozen=True, slots=True)
class Check:
    """One limit: what there was to reach, what was reached, and whether that stays within `limit`."""

    name: str
    reference: float | None
    reached: float | None
    limit: float | None

    @property
    def applies(self) -> bool:
        """Whether the data has anything to check."""
        return self.reference is not None or self.reached is not None

    @property
    def passed(self) -> bool:
        """True only where all three are finite numbers and what was reached is within the limit."""
        numbers = (self.reference, self.reached, self.limit)
        if any(number is None or not math.isfinite(number) for number in numbers):
            return not self.applies
        assert self.reached is not None and self.limit is not None
        return self.reached <= self.limit + SLACK

    def to_json(self) -> dict[str, Any]:
        """JSON values, numbers rounded to four decimals."""
        return {
            "name": self.name,
            "reference": _finite(self.reference),
            "reached": _finite(self.reached),
            "limit": _finite(self.limit),
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations of one dataset, what each is called, and the limits that the second is held to.

    `title` stands above their table.
    """

    names: tuple[str, str]
    reference: Evaluation
    reached: Evaluation
    checks: tuple[Check, ...]
    title: str = ""

    def reasons(self) -> Iterator[str]:
        """Everything that speaks against the second."""
        yield from self._obstacles()
        before, after = self.names
        for check in self.checks:
            if not check.passed:
                found = f"{_number(check.reference)} in the {before}, {_number(check.reached)} in the {after}"
                yield f"{check.name} {found}, {_number(check.limit)} allowed"
        scores = self.reached.scores
        if not scores.words.reference + scores.characters.reference:
            yield "nothing was measured: the data has no word that is said"

    def tables(self) -> Iterator[Table]:
        """What was measured by stratum, then every clip on which the second lost."""
        before, after = self.names
        yield Table(self.title, ("", before, after), tuple(_stratum_rows(self.reference, self.reached)))
        if lost := tuple(_loss_rows(self.reference, self.reached)):
            yield Table("clips that lost", ("clip", before, after, f"text of the {after}"), lost)

    def _obstacles(self) -> Iterator[str]:
        reference, reached, both = self.reference, self.reached, " and ".join(self.names)
        if reference.dataset_sha256 != reached.dataset_sha256:
            yield f"{both} were measured on different data ({reference.dataset} and {reached.dataset})"
        if [result.clip.name for result in reference.results] != [result.clip.name for result in reached.results]:
            yield f"{both} were not measured on the same clips"
        for who, evaluation in zip(self.names, (reference, reached), strict=True):
            if evaluation.failures:
                first = evaluation.failures[0]
                yield f"{who}: {len(evaluation.failures)} clips failed, {first.clip.name} first ({first.error})"


@dataclass(frozen=True, slots=True)
class Gate:
    """How much worse than its source an artifact may be, and its stream than its offline text; each limit is an
    absolute difference.

    Rates are fractions (0.01 is one point of word error rate), language errors a fraction of clips, invented
    words a number in each minute of non-speech. A negative limit demands an artifact better than its source.
    """

    max_wer_increase: float = 0.03
    max_cer_increase: float = 0.02
    max_language_error_increase: float = 0.1
    max_invented_words_per_minute_increase: float = 2.0
    max_stream_wer_increase: float = 0.03
    max_stream_cer_increase: float = 0.03

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"gate limit {name} is {value!r}; expected a number")

    def check(self, source: Evaluation, artifact: Evaluation) -> "GateResult":
        """Compares two evaluations of one dataset."""
        before, after = source.scores, artifact.scores
        checks = (
            _within("word error rate", before.wer, after.wer, self.max_wer_increase),
            _within("character error rate", before.cer, after.cer, self.max_cer_increase),
            _within(
                "language error rate",
                _language_error(before),
                _language_error(after),
                self.max_language_error_increase,
            ),
            _within(
                "invented words per minute",
                before.invented_per_minute,
                after.invented_per_minute,
                self.max_invented_words_per_minute_increase,
            ),
        )
        return GateResult(self, (Comparison(("source", "artifact"), source, artifact, checks),))

    def compare_stream(self, offline: Evaluation, streamed: Evaluation, title: str) -> Comparison:
        """What the artifact's stream committed beside what it says of the same clips as a whole."""
        before, after = offline.scores, streamed.scores
        checks = (
            _within("streaming word error rate", before.wer, after.wer, self.max_stream_wer_increase),
            _within("streaming character error rate", before.cer, after.cer, self.max_stream_cer_increase),
        )
        return Comparison(("offline text", "stream"), offline, streamed, checks, title)


@dataclass(frozen=True)
class GateResult:
    """What was compared, the source with the artifact first, and every reason why it is not good enough."""

    gate: Gate
    comparisons: tuple[Comparison, ...]

    @property
    def source(self) -> Evaluation:
        """Of the source, at full precision."""
        return self.comparisons[0].reference

    @property
    def artifact(self) -> Evaluation:
        """Of the artifact."""
        return self.comparisons[0].reached

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every limit that the data has something to check of."""
        return tuple(check for comparison in self.comparisons for check in comparison.checks if check.applies)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Everything that speaks against the artifact."""
        return tuple(reason for comparison in self.comparisons for reason in comparison.reasons())

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the artifact."""
        return not self.reasons

    def with_stream(self, offline: Evaluation, streamed: Evaluation, title: str = "") -> "GateResult":
        """This, and the artifact's stream held to the artifact's own offline text of the same clips."""
        return dataclasses.replace(
            self, comparisons=(*self.comparisons, self.gate.compare_stream(offline, streamed, title))
        )

    def require(self) -> None:
        """Raises `GateError` unless the gate holds."""
        if not self.passed:
            raise GateError(self)

    def tables(self) -> list[Table]:
        """For each comparison what was measured by stratum, then every clip that lost."""
        return [table for comparison in self.comparisons for table in comparison.tables()]

    def to_json(self) -> dict[str, Any]:
        """JSON values: the limits, each check, the reasons."""
        return {
            "passed": self.passed,
            "limits": dataclasses.asdict(self.gate),
            "checks": [check.to_json() for check in self.checks],
            "reasons": list(self.reasons),
        }


def gate_from(limits: Mapping[str, float]) -> Gate:
    """The gate with these limits, as a target's [gate] has them, and defaults for the others."""
    known = [field.name for field in dataclasses.fields(Gate)]
    if unknown := sorted(set(limits) - set(known)):
        raise InputError(f"gate limit {unknown[0]!r} is not for speech; those are {', '.join(known)}")
    return Gate(**limits)


def scores_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Rows of stratum, clips, and what was counted in it, for one evaluation."""
    for name, scores in {"all": evaluation.scores, **evaluation.strata}.items():
        yield name, str(len(scores.results)), _rates(scores), _language(scores)


def _within(name: str, before: float | None, after: float | None, allowed: float) -> Check:
    return Check(name, before, after, None if before is None else before + allowed)


def _language_error(scores: Scores) -> float | None:
    right, asked = scores.language_id
    return (asked - right) / asked if asked else None


def _stratum_rows(source: Evaluation, artifact: Evaluation) -> Iterator[tuple[str, str, str]]:
    nothing = Scores(())
    before, after = ({"all": e.scores, **e.strata} for e in (source, artifact))
    for name in before | after:
        yield name, _cell(before.get(name, nothing)), _cell(after.get(name, nothing))


def _cell(scores: Scores) -> str:
    return ", ".join(part for part in (_rates(scores), _language(scores)) if part)


def _rates(scores: Scores) -> str:
    parts = [
        _rate("WER", scores.words, scores.wer_interval),
        _rate("CER", scores.characters, scores.cer_interval),
    ]
    if scores.invented_per_minute is not None:
        parts.append(f"{scores.invented} words invented in {scores.silent_minutes * 60:.0f} s")
    return ", ".join(part for part in parts if part)


def _rate(name: str, counts: ErrorCounts, interval: tuple[float, float] | None) -> str:
    if counts.rate is None:
        return ""
    spread = f" [{interval[0]:.1%}, {interval[1]:.1%}]" if interval else ""
    return f"{name} {counts.rate:.1%}{spread} ({counts.errors} of {counts.reference})"


def _language(scores: Scores) -> str:
    right, asked = scores.language_id
    return f"language {right} of {asked}" if asked else ""


def _loss_rows(source: Evaluation, artifact: Evaluation) -> Iterator[tuple[str, str, str, str]]:
    before = {result.clip.name: result for result in source.results}
    for result in artifact.results:
        reference = before.get(result.clip.name)
        if reference and _badness(result) > _badness(reference):
            yield result.clip.name, _errors(reference), _errors(result), _shortened(result.hypothesis.text)


def _badness(result: ClipResult) -> int:
    return result.counts.errors + result.invented


def _errors(result: ClipResult) -> str:
    if not result.clip.is_speech:
        return f"{result.invented} invented"
    return f"{result.counts.errors} of {result.counts.reference}"


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def _finite(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None
