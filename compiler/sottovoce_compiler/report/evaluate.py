"""Runs a model, source or artifact, over a dataset and adds up what it got wrong.

Knows clips and what was said of them. Does not know how a model is run (artifact.py, reference.py), nor what
is good enough (gate.py). A clip in which something is said counts towards the error rate of its language's
unit, words or characters; one in which nothing is said counts only by the words that were invented for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sottovoce.errors import SottovoceError
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.hypothesis import Hypothesis
from sottovoce_compiler.report.normalize import counts_characters, normalize
from sottovoce_compiler.report.score import ErrorCounts, bootstrap_interval, count_errors, total

SHORT_SECONDS = 2.0
LONG_SECONDS = 20.0
DECIMALS = 4  # enough for any rate; digits beyond would differ between machines for no reason

Transcribe = Callable[[Clip], Hypothesis]


@dataclass(frozen=True, slots=True)
class ClipResult:
    """A clip, what was said of it, and the errors in that; `invented` counts words where nothing is said."""

    clip: Clip
    hypothesis: Hypothesis
    counts: ErrorCounts
    invented: int

    @property
    def by_characters(self) -> bool:
        """Whether `counts` are characters."""
        return counts_characters(self.clip.language)


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip for which the model gave an error instead of a text."""

    clip: Clip
    error: str


@dataclass(frozen=True)
class Scores:
    """Sums over some clips. Rates are None where there is nothing to divide by."""

    results: tuple[ClipResult, ...]

    @cached_property
    def spoken(self) -> tuple[ClipResult, ...]:
        """The clips in which something is said."""
        return tuple(result for result in self.results if result.clip.is_speech)

    @cached_property
    def words(self) -> ErrorCounts:
        """Errors in languages that are counted in words."""
        return total(self._counts(by_characters=False))

    @cached_property
    def characters(self) -> ErrorCounts:
        """Errors in languages that are counted in characters."""
        return total(self._counts(by_characters=True))

    @property
    def wer(self) -> float | None:
        """Word error rate."""
        return self.words.rate

    @property
    def cer(self) -> float | None:
        """Character error rate."""
        return self.characters.rate

    @property
    def wer_interval(self) -> tuple[float, float] | None:
        """95 % interval of the word error rate over clips."""
        return bootstrap_interval(self._counts(by_characters=False))

    @property
    def cer_interval(self) -> tuple[float, float] | None:
        """95 % interval of the character error rate over clips."""
        return bootstrap_interval(self._counts(by_characters=True))

    @property
    def language_id(self) -> tuple[int, int]:
        """Clips whose language was heard rightly, and clips for which a language was heard and is known."""
        asked = [result for result in self.spoken if result.clip.language and result.hypothesis.language]
        return sum(result.hypothesis.language == result.clip.language for result in asked), len(asked)

    @property
    def invented(self) -> int:
        """Words said of clips in which nothing is said."""
        return sum(result.invented for result in self.results)

    @property
    def silent_minutes(self) -> float:
        """Length of the clips in which nothing is said."""
        return sum(result.clip.seconds for result in self.results if not result.clip.is_speech) / 60

    @property
    def invented_per_minute(self) -> float | None:
        """Words invented in each minute of non-speech."""
        return self.invented / self.silent_minutes if self.silent_minutes else None

    def _counts(self, *, by_characters: bool) -> list[ErrorCounts]:
        return [result.counts for result in self.spoken if result.by_characters == by_characters]


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one model on one dataset."""

    dataset: str
    dataset_sha256: str
    results: tuple[ClipResult, ...]
    failures: tuple[Failure, ...] = ()

    @cached_property
    def scores(self) -> Scores:
        """Over all clips."""
        return Scores(self.results)

    @cached_property
    def strata(self) -> Mapping[str, Scores]:
        """Over clips under 2 s, over 20 s, without speech, in each language; only strata that have clips."""
        groups: dict[str, list[ClipResult]] = {}
        for result in self.results:
            for name in _strata_of(result.clip):
                groups.setdefault(name, []).append(result)
        return {name: Scores(tuple(groups[name])) for name in sorted(groups, key=_stratum_order)}

    def to_json(self) -> dict[str, Any]:
        """JSON values, rates rounded to four decimals; the same measurement gives the same object."""
        seconds = sum(result.clip.seconds for result in self.results)
        return {
            "dataset": {
                "name": self.dataset,
                "sha256": self.dataset_sha256,
                "clips": len(self.results) + len(self.failures),
                "seconds": round(seconds, 3),
            },
            **_scores_json(self.scores),
            "strata": {name: _scores_json(scores) for name, scores in self.strata.items()},
            "failures": [{"clip": failure.clip.name, "error": failure.error} for failure in self.failures],
        }


def evaluate(
    transcribe: Transcribe, dataset: Dataset, progress: Callable[[int], None] = lambda finished: None
) -> Evaluation:
    """Transcribes every clip and counts. A failing clip is listed and the others go on; a bug is raised."""
    results: list[ClipResult] = []
    failures: list[Failure] = []
    for number, clip in enumerate(dataset.clips, start=1):
        try:
            results.append(judge(clip, transcribe(clip)))
        except (SottovoceError, OSError) as error:
            failures.append(Failure(clip, str(error)))
        progress(number)
    return Evaluation(dataset.name, dataset.sha256, tuple(results), tuple(failures))


def judge(clip: Clip, hypothesis: Hypothesis) -> ClipResult:
    """What of `hypothesis` is wrong."""
    if clip.is_speech:
        return ClipResult(clip, hypothesis, count_errors(clip.text, hypothesis.text, clip.language), 0)
    return ClipResult(clip, hypothesis, ErrorCounts(), len(normalize(hypothesis.text, None).split()))


def _strata_of(clip: Clip) -> Sequence[str]:
    if not clip.is_speech:
        return ("non_speech",)
    length = ("short",) if clip.seconds < SHORT_SECONDS else ("long",) if clip.seconds > LONG_SECONDS else ()
    return (*length, f"language:{clip.language or 'unknown'}")


def _stratum_order(name: str) -> tuple[int, str]:
    first = ("short", "long", "non_speech")
    return (first.index(name) if name in first else len(first)), name


def _scores_json(scores: Scores) -> dict[str, Any]:
    right, asked = scores.language_id
    return {
        "clips": len(scores.results),
        "wer": _rounded(scores.wer),
        "wer_interval": _rounded_pair(scores.wer_interval),
        "words": scores.words.reference,
        "substitutions": scores.words.substitutions,
        "deletions": scores.words.deletions,
        "insertions": scores.words.insertions,
        "cer": _rounded(scores.cer),
        "cer_interval": _rounded_pair(scores.cer_interval),
        "characters": {
            "reference": scores.characters.reference,
            "substitutions": scores.characters.substitutions,
            "deletions": scores.characters.deletions,
            "insertions": scores.characters.insertions,
        },
        "language_id": {
            "right": right,
            "clips": asked,
            "accuracy": _rounded(right / asked if asked else None),
        },
        "non_speech": {
            "minutes": round(scores.silent_minutes, DECIMALS),
            "invented_words": scores.invented,
            "invented_words_per_minute": _rounded(scores.invented_per_minute),
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)


def _rounded_pair(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else [round(value, DECIMALS) for value in pair]
