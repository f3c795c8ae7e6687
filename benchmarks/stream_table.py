"""Turns a streaming result (the JSON as a dict) into Markdown: delays, errors and work, then an hour and a theft.

Measures nothing; a figure that is not in the result shows as a dash.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.live import LIVE_SYSTEMS, OURS
from table import heading

DASH = "-"
Json = Mapping[str, Any]
Cell = Callable[[Json], str]


@dataclass(frozen=True, slots=True)
class Aims:
    """What a model's stream is to reach: seconds, points of word error rate, shares of the cores."""

    commit_mean: float
    commit_p90: float
    shown_p50: float
    share_speaking: float
    points: float = 1.0
    share_silent: float = 0.02


AIMS: Mapping[str, Aims] = {
    "whisper-base": Aims(1.0, 1.8, 0.6, 0.6),
    "whisper-tiny.en": Aims(0.7, 1.3, 0.45, 0.3),
}


def write(result: Json, stem: Path) -> None:
    """The JSON and the page, at `stem` with their suffixes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(render(result), encoding="utf-8")


def render(result: Json) -> str:
    """The whole page."""
    ends = result["word_ends"]
    lines = [
        *heading("Streaming", result),
        "LocalAgreement runs over faster-whisper int8. Compute is charged: a delay holds the work and the wait for it.",
        *_word_ends(ends),
    ]
    for spec, model in result["models"].items():
        lines += ["", f"## {spec}", *_model(spec, model)]
    return "\n".join([*lines, "", "## Versions", "", *_versions(result), ""])


def _word_ends(ends: Json) -> list[str]:
    if not ends["clips"]:
        return []
    left_out = ", ".join(f"{len(words)} {reason}" for reason, words in ends["left_out"].items())
    heard = f"{ends['clips']} clips, {ends['audio_s']:.0f} s; {ends['trusted']} of {ends['words']} words' ends"
    return [f"{heard} from forced alignment (left out: {left_out or 'none'})."]


def _model(spec: str, model: Json) -> Iterator[str]:
    for title, columns in TABLES.items():
        needed = [name for name, system in model["systems"].items() if _has(system, columns)]
        if needed:
            yield from ("", f"{title}", "")
            yield from _table(columns, {name: model["systems"][name] for name in needed})
    if noise := model.get("silence", {}).get("noise"):
        yield from (
            "",
            f"Noise: {', '.join(noise['clips'])}; left out as speech was found: {_names(noise['left_out'])}.",
        )
    yield from _aims(spec, model)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _table(columns: Mapping[str, Cell], systems: Mapping[str, Json]) -> Iterator[str]:
    yield f"| | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, system in systems.items():
        yield f"| {LIVE_SYSTEMS[name].title} | {' | '.join(cell(system) for cell in columns.values())} |"


def _has(system: Json, columns: Mapping[str, Cell]) -> bool:
    return any(cell(system) != DASH for cell in columns.values())


def _find(system: Json, *path: str) -> Any:
    value: Any = system
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _number(*path: str, digits: int = 2, scale: float = 1.0) -> Cell:
    def cell(system: Json) -> str:
        value = _find(system, *path)
        return DASH if value is None else f"{value * scale:.{digits}f}"

    return cell


def _percent(*path: str) -> Cell:
    def cell(system: Json) -> str:
        value = _find(system, *path)
        return DASH if value is None else f"{value:.1%}"

    return cell


def _signed(*path: str, digits: int = 2, scale: float = 1.0) -> Cell:
    def cell(system: Json) -> str:
        value = _find(system, *path)
        return DASH if value is None else f"{value * scale:+.{digits}f}"

    return cell


def _errors(rate: str, counts: str) -> Cell:
    def cell(system: Json) -> str:
        found, value = _find(system, "latency", counts), _find(system, "latency", rate)
        return DASH if value is None else f"{value:.1%} ({_count(found)}/{found['reference']})"

    return cell


def _count(counts: Json) -> int:
    return int(counts["substitutions"] + counts["deletions"] + counts["insertions"])


def _changes(*path: str) -> Cell:
    """Errors taken apart: what was lost, what was added, what came out otherwise."""

    def cell(system: Json) -> str:
        found = _find(system, *path)
        if found is None:
            return DASH
        return f"{found['deletions']} lost, {found['insertions']} added, {found['substitutions']} other"

    return cell


_COMMIT, _SHOWN = "word_to_commit_s", "word_to_first_partial_s"
_GROWTH = ("soak", "growth")
_THEFT = ("stolen", "disturbed")

TABLES: Mapping[str, Mapping[str, Cell]] = {
    "Seconds from a word's end, and the longest that audio waited:": {
        "commit mean": _number("latency", _COMMIT, "mean"),
        "p50": _number("latency", _COMMIT, "p50"),
        "p90": _number("latency", _COMMIT, "p90"),
        "p99": _number("latency", _COMMIT, "p99"),
        "first partial p50": _number("latency", _SHOWN, "p50"),
        "first partial p90": _number("latency", _SHOWN, "p90"),
        "longest lag": _number("latency", "max_lag_s"),
        "words timed": _number("latency", "word_ends", "matched", digits=0),
    },
    "Errors, and what readers saw taken back:": {
        "word errors, streamed": _errors("wer", "words"),
        "the same offline": _errors("offline_wer", "offline_words"),
        "points": _signed("latency", "wer_increase", scale=100),
        "rewritten words a word": _number("latency", "rewritten_words_per_word"),
        "offline word ends, median less alignment, s": _signed(
            "latency", "offline_word_ends_less_alignment", "median", digits=3
        ),
        "mean": _signed("latency", "offline_word_ends_less_alignment", "mean", digits=3),
        "apart, p90": _number("latency", "offline_word_ends_less_alignment", "p90_absolute", digits=3),
    },
    "Work, as shares of the cores, and memory above imports:": {
        "real-time factor": _number("latency", "rtf", digits=3),
        "over all of the speech": _percent("latency", "share_of_cores_overall"),
        "while it hears speech": _percent("latency", "share_of_cores", "speech"),
        "in real time": _percent("stolen", "undisturbed", "share_of_cores"),
        "digital silence": _percent("silence", "digital", "share_of_cores"),
        "low noise": _percent("silence", "noise", "share_of_cores"),
        "silence in real time": _percent("silence", "digital", "share_of_cores_in_real_time"),
        "noise in real time": _percent("silence", "noise", "share_of_cores_in_real_time"),
        "words invented in noise": _number("silence", "noise", "words", digits=0),
        "peak memory, MB": _number("memory", "peak_mb", digits=0),
    },
    "The soak; growth after the first two minutes:": {
        "memory, MB an hour": _signed(*_GROWTH, "rss_mb_per_hour"),
        "most less least, MB": _number(*_GROWTH, "rss_mb_span", digits=1),
        "last pass less second, MB": _signed(*_GROWTH, "same_audio_rss_change_mb"),
        "peak, MB": _number("soak", "peak_mb", digits=0),
        "real-time factor, first 10 min": _number(*_GROWTH, "first_minutes_rtf", digits=3),
        "last 10 min": _number(*_GROWTH, "last_minutes_rtf", digits=3),
        "cost of the same audio, last pass by second": _number(*_GROWTH, "same_audio_cost_ratio", digits=3),
        "its longest lags, change, s": _signed(*_GROWTH, "same_audio_lag_change_s", digits=3),
        "longest lag, first 10 min, s": _number(*_GROWTH, "first_minutes_max_lag_s"),
        "last 10 min, s": _number(*_GROWTH, "last_minutes_max_lag_s"),
    },
    "Half of the processor taken away in the middle, in real time:": {
        "against the undisturbed text": _changes(*_THEFT, "errors_against_undisturbed"),
        "word errors": _percent(*_THEFT, "errors_against_reference", "rate"),
        "undisturbed": _percent("stolen", "undisturbed", "errors_against_reference", "rate"),
        "lag before, mean s": _number(*_THEFT, "lag_before", "mean"),
        "most": _number(*_THEFT, "lag_before", "max"),
        "during, mean s": _number(*_THEFT, "lag_during", "mean"),
        "most ": _number(*_THEFT, "lag_during", "max"),
        "after, mean s": _number(*_THEFT, "lag_after", "mean"),
        "recovered after, s": _number(*_THEFT, "recovered_after_s", digits=1),
    },
}


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of what we aim at: `most` is the limit, beside what came out."""

    what: str
    most: float
    found: float | None
    unit: str

    def row(self) -> str:
        """As a line of the table."""
        if self.found is None:
            return f"| {self.what} | {self._said(self.most)} | {DASH} | not measured |"
        verdict = "reached" if self.found <= self.most else "not reached"
        return f"| {self.what} | {self._said(self.most)} | {self._said(self.found)} | {verdict} |"

    def _said(self, value: float) -> str:
        return f"{value:.1%}" if self.unit == "%" else f"{value:.2f} {self.unit}"


def _aims(spec: str, model: Json) -> Iterator[str]:
    ours, aims = model["systems"].get(OURS), AIMS.get(spec)
    if ours is None or aims is None or "latency" not in ours:
        return
    increase = _find(ours, "latency", "wer_increase")
    quiet = [_find(ours, "silence", kind, "share_of_cores_in_real_time") for kind in ("digital", "noise")]
    goals = [
        Goal("word's end to commit, mean", aims.commit_mean, _find(ours, "latency", _COMMIT, "mean"), "s"),
        Goal("word's end to commit, p90", aims.commit_p90, _find(ours, "latency", _COMMIT, "p90"), "s"),
        Goal("word's end to first partial, p50", aims.shown_p50, _find(ours, "latency", _SHOWN, "p50"), "s"),
        Goal("streamed above offline", aims.points, None if increase is None else 100 * increase, "points"),
        Goal(
            "share of the cores, speaking", aims.share_speaking, _find(ours, "latency", "share_of_cores", "speech"), "%"
        ),
        Goal(
            "share of the cores, silent (the greater, real time)",
            aims.share_silent,
            max((share for share in quiet if share is not None), default=None),
            "%",
        ),
    ]
    yield from ("", "| aim | at most | measured | |", "|---|---|---|---|")
    yield from (goal.row() for goal in goals)


def _versions(result: Json) -> list[str]:
    found: dict[str, str] = {}
    for model in result["models"].values():
        for name, system in model["systems"].items():
            found[name] = ", ".join(f"{key} {value}" for key, value in system["about"].items())
    return [f"- {LIVE_SYSTEMS[name].title}: {text}" for name, text in found.items()]
