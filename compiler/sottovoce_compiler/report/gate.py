"""Whether an artifact is as good as its source: the same data, the same counting, and limits on what may be
lost.

Knows two evaluations and the limits of a target or a command line. Fails closed: whatever keeps a comparison
from being made (a clip that failed, no data, a number that is not one) is a reason not to pass. Point values
are compared, not intervals: on a small set both intervals are wide, and a limit that waits for certainty
would let anything through.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.errors import InputError, SottovoceError
from sottovoce_compiler.report.evaluate import ClipResult, Evaluation, Scores
from sottovoce_compiler.report.score import ErrorCounts
from sottovoce_compiler.report.table import Table

SLACK = 1e-9  # of floating-point division; no count can make a difference this small
TEXT_SHOWN = 60  # characters of a transcript in the table of losses


class GateError(SottovoceError):
    """The artifact is worse than its gate allows; the message has the reasons, `result` the tables."""

    def __init__(self, result: "GateResult") -> None:
        super().__init__(f"the gate does not hold: {'; '.join(result.reasons)}")
        self.result = result


@dataclass(frozen=True, slots=True)
class Check:
    """One limit: what source and artifact reached, and whether the artifact stays within `limit`."""

    name: str
    source: float | None
    artifact: float | None
    limit: float | None

    @property
    def applies(self) -> bool:
        """Whether the data has anything to check."""
        return self.source is not None or self.artifact is not None

    @property
    def passed(self) -> bool:
        """True only where all three are finite numbers and the artifact is within the limit."""
        numbers = (self.source, self.artifact, self.limit)
        if any(number is None or not math.isfinite(number) for number in numbers):
            return not self.applies
        assert self.artifact is not None and self.limit is not None
        return self.artifact <= self.limit + SLACK


@dataclass(frozen=True, slots=True)
class Gate:
    """How much worse than its source an artifact may be; each limit is an absolute difference.

    Rates are fractions (0.01 is one point of word error rate), language errors a fraction of clips, invented
    words a number in each minute of non-speech. A negative limit demands an artifact better than its source.
    """

    max_wer_increase: float = 0.03
    max_cer_increase: float = 0.02
    max_language_error_increase: float = 0.1
    max_invented_words_per_minute_increase: float = 2.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"gate limit {name} is {value!r}; expected a number")

    def check(self, source: Evaluation, artifact: Evaluation) -> "GateResult":
        """Compares two evaluations of one dataset."""
        checks = tuple(check for check in self._checks(source.scores, artifact.scores) if check.applies)
        reasons = [*_obstacles(source, artifact), *(_reason(check) for check in checks if not check.passed)]
        if not artifact.scores.words.reference + artifact.scores.characters.reference:
            reasons.append("nothing was measured: the data has no word that is said")
        return GateResult(self, checks, tuple(reasons), source, artifact)

    def _checks(self, source: Scores, artifact: Scores) -> Iterator[Check]:
        def within(name: str, before: float | None, after: float | None, allowed: float) -> Check:
            return Check(name, before, after, None if before is None else before + allowed)

        yield within("word error rate", source.wer, artifact.wer, self.max_wer_increase)
        yield within("character error rate", source.cer, artifact.cer, self.max_cer_increase)
        yield within(
            "language error rate",
            _language_error(source),
            _language_error(artifact),
            self.max_language_error_increase,
        )
        yield within(
            "invented words per minute",
            source.invented_per_minute,
            artifact.invented_per_minute,
            self.max_invented_words_per_minute_increase,
        )


@dataclass(frozen=True)
class GateResult:
    """What was compared, and every reason why it is not good enough."""

    gate: Gate
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    source: Evaluation
    artifact: Evaluation

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the artifact."""
        return not self.reasons

    def require(self) -> None:
        """Raises `GateError` unless the gate holds."""
        if not self.passed:
            raise GateError(self)

    def tables(self) -> list[Table]:
        """What was measured by stratum, then every clip on which the artifact lost."""
        tables = [Table("", ("", "source", "artifact"), tuple(_stratum_rows(self.source, self.artifact)))]
        if lost := tuple(_loss_rows(self.source, self.artifact)):
            tables.append(Table("clips that lost", ("clip", "source", "artifact", "artifact's text"), lost))
        return tables

    def to_json(self) -> dict[str, Any]:
        """JSON values: the limits, each check, the reasons."""
        return {
            "passed": self.passed,
            "limits": dataclasses.asdict(self.gate),
            "checks": [
                {
                    "name": check.name,
                    "source": _finite(check.source),
                    "artifact": _finite(check.artifact),
                    "limit": _finite(check.limit),
                    "passed": check.passed,
                }
                for check in self.checks
            ],
            "reasons": list(self.reasons),
        }


def gate_from(limits: Mapping[str, float]) -> Gate:
    """The gate with these limits, as a target's [gate] has them, and defaults for the others."""
    known = [field.name for field in dataclasses.fields(Gate)]
    if unknown := sorted(set(limits) - set(known)):
        raise InputError(f"unknown gate limit {unknown[0]!r}; known are {', '.join(known)}")
    return Gate(**limits)


def scores_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Rows of stratum, clips, and what was counted in it, for one evaluation."""
    for name, scores in {"all": evaluation.scores, **evaluation.strata}.items():
        yield name, str(len(scores.results)), _rates(scores), _language(scores)


def _obstacles(source: Evaluation, artifact: Evaluation) -> Iterator[str]:
    if source.dataset_sha256 != artifact.dataset_sha256:
        yield f"source and artifact were measured on different data ({source.dataset} and {artifact.dataset})"
    if [result.clip.name for result in source.results] != [result.clip.name for result in artifact.results]:
        yield "source and artifact were not measured on the same clips"
    for who, evaluation in (("source", source), ("artifact", artifact)):
        if evaluation.failures:
            first = evaluation.failures[0]
            yield f"{who}: {len(evaluation.failures)} clips failed, {first.clip.name} first ({first.error})"


def _reason(check: Check) -> str:
    return (
        f"{check.name} {_number(check.source)} in the source, {_number(check.artifact)} in the artifact, "
        f"{_number(check.limit)} allowed"
    )


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
