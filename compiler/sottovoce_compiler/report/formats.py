"""The same model in both formats, GGUF and ONNX, side by side: which loses less, is smaller, answers faster.

Knows two packed drafts and how one is held against the other; knows nothing of how they were lowered. What a draft
loses and weighs is the same in every compile of one source; speed is not, and is measured only where it is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.bench import BenchResult
from sottovoce_compiler.report.language import LanguageScores
from sottovoce_compiler.report.table import Table

_SAME = "same"


@dataclass(frozen=True, slots=True)
class FormatFigures:
    """One format's draft: `scores` on the report's text, None where that is too short; `bytes` of the packed draft;
    `speed` on this machine, where it was asked for."""

    form: str
    precision: str
    engine: str
    bytes: int
    scores: LanguageScores | None
    speed: BenchResult | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values; speeds only where they were measured."""
        scores = {} if self.scores is None else self.scores.to_json()
        found = {"precision": self.precision, "engine": self.engine, "bytes": self.bytes, "quality": scores}
        return found if self.speed is None else found | {"speed": _speed_json(self.speed)}


@dataclass(frozen=True, slots=True)
class FormatComparison:
    """The format that was asked for and the other one, or why there is no other."""

    chosen: FormatFigures
    other: FormatFigures | None
    left_out: str = ""

    @property
    def better(self) -> Mapping[str, str]:
        """The format that is ahead: by mean KL divergence, by bytes, and where they were timed by tokens a second of an
        answer and of a prompt; "same" where nothing parts them. What was not measured on both is left out."""
        if self.other is None:
            return {}
        pairs = {name: (figures(self.chosen), figures(self.other)) for name, figures in _FIGURES.items()}
        return {
            name: _ahead(self.chosen.form, mine, self.other.form, theirs, most=name in _MOST)
            for name, (mine, theirs) in pairs.items()
            if mine is not None and theirs is not None
        }

    def to_json(self) -> dict[str, Any]:
        """The report's `formats`."""
        found: dict[str, Any] = {"chosen": self.chosen.form, self.chosen.form: self.chosen.to_json()}
        if self.other is None:
            return found | {"left_out": self.left_out}
        found[self.other.form] = self.other.to_json()
        machine = {} if self.chosen.speed is None else {"machine": dict(self.chosen.speed.machine)}
        return found | machine | {"better": dict(self.better)}

    def table(self) -> Table:
        """A row a figure, a column a format, and which is better."""
        parts = (self.chosen,) if self.other is None else (self.chosen, self.other)
        heads = ("", *(f"{part.form} {part.precision}" for part in parts), "better")
        better = self.better
        rows = [
            (label, *(show(part) for part in parts), better.get(name, ""))
            for name, label, show in _ROWS
            if any(show(part) for part in parts)
        ]
        title = "Both formats" if self.other is not None else f"No other format: {self.left_out}"
        return Table(title, heads, tuple(rows))


def _ahead(mine: str, left: float, theirs: str, right: float, *, most: bool) -> str:
    if left == right:
        return _SAME
    return mine if (left > right) == most else theirs


def _kl(figures: FormatFigures) -> float | None:
    return None if figures.scores is None else figures.scores.to_json()["kl"]


def _rate(figures: FormatFigures, name: str) -> float | None:
    found: float | None = None if figures.speed is None else getattr(figures.speed, name)
    return found


_FIGURES: Mapping[str, Callable[[FormatFigures], float | None]] = {
    "quality": _kl,
    "size": lambda figures: float(figures.bytes),
    "speed": lambda figures: _rate(figures, "tokens_per_s"),
    "prompt_speed": lambda figures: _rate(figures, "prompt_tokens_per_s"),
}
_MOST = ("speed", "prompt_speed")  # of which more is better


def _scored(show: Callable[[LanguageScores], str]) -> Callable[[FormatFigures], str]:
    return lambda figures: "" if figures.scores is None else show(figures.scores)


def _timed(name: str) -> Callable[[FormatFigures], str]:
    return lambda figures: "" if (rate := _rate(figures, name)) is None else f"{rate:.1f}"


# (name in `better`, label, what is shown of one format)
_ROWS: tuple[tuple[str, str, Callable[[FormatFigures], str]], ...] = (
    ("quality", "KL from the source, mean", _scored(lambda scores: f"{scores.kl:.4g}")),
    ("", "perplexity", _scored(lambda scores: f"{scores.perplexity:.3f}")),
    ("", "same likeliest token", _scored(lambda scores: f"{scores.top1:.1%}")),
    ("size", "MB", lambda figures: f"{figures.bytes / 1e6:.1f}"),
    ("speed", "tokens a second", _timed("tokens_per_s")),
    ("prompt_speed", "prompt tokens a second", _timed("prompt_tokens_per_s")),
)


def _speed_json(speed: BenchResult) -> dict[str, Any]:
    return {
        "tokens_per_s": speed.tokens_per_s,
        "prompt_tokens_per_s": speed.prompt_tokens_per_s,
        "load_s": speed.load_s,
        "peak_mb": speed.peak_mb,
        "threads": speed.threads,
    }
