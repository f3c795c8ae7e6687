"""Turns a result (the JSON as a dict) into Markdown: a table a model, then what was aimed at and came out.

Measures nothing; a figure that is not in the result shows as a dash.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from peers import FASTER_WHISPER, OURS, SYSTEMS

DASH = "-"
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of what we aim at: `margin` is how far we are beyond it, negative when short."""

    what: str
    aim: str
    figure: str
    margin: float


def ground(title: str, result: Json) -> list[str]:
    """How every page of results begins: on what it was measured, and with which command."""
    machine = result["machine"]
    return [
        f"# {title}, side by side",
        "",
        f"{machine['cpu']} (family/model {machine['cpu_family_model']}), {machine['cores']} cores, "
        f"{', '.join(machine['flags'])}; {result['threads']} threads; {machine['system']}, Python "
        f"{machine['python']}; load average {machine['load_average_before']} before; {result['date']}.",
        "",
        f"    {result['command']}",
        "",
    ]


def heading(title: str, result: Json) -> list[str]:
    """The same for speech: also on which recordings."""
    speech = ", ".join(f"{key} {value}" for key, value in result["data"].items())
    return [*ground(title, result), f"Speech: {speech}."]


def render(result: Json) -> str:
    """The whole page."""
    lines = [
        *heading("Transcription", result),
        "A system's time is the median of interleaved repetitions; in brackets its ratio to ours.",
    ]
    for spec, model in result["models"].items():
        lines += ["", f"## {spec}", "", *_systems_table(model), *_batch_line(model), *_goals_table(model)]
    return "\n".join([*lines, "", "## Versions", "", *_versions(result), ""])


def _systems_table(model: Json) -> list[str]:
    columns: dict[str, Callable[[Json, Json], str]] = {
        "short clip, ms": lambda s, o: _timed(s, o, "clip", 1e3, 0),
        "long recording, s": lambda s, o: _timed(s, o, "long", 1, 1),
        "its word errors": lambda s, _: _score(s, ("long", "score")),
        "encoder, ms": lambda s, _: _number(s, ("parts", "encoder_s"), 1e3, 0),
        "token, ms": lambda s, _: _number(s, ("parts", "token_s"), 1e3, 1),
        "load, ms": lambda s, _: _number(s, ("footprint", "load_s"), 1e3, 0),
        "peak above imports, MB": lambda s, _: _number(s, ("footprint", "peak_mb"), 1, 0),
        "disk, MB": lambda s, _: _number(s, ("bytes",), 1e-6, 1),
        "en word errors": lambda s, _: _score(s, ("scores", "english")),
        "other languages, words": lambda s, _: _score(s, ("scores", "other words")),
        "zh ja ko, characters": lambda s, _: _score(s, ("scores", "other characters")),
        "invented words": lambda s, _: _number(s, ("invented", "words"), 1, 0),
    }
    systems = model["systems"]
    ours = systems.get(OURS, {})
    rows = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, system in systems.items():
        rows.append(f"| {SYSTEMS[name].title} | {' | '.join(cell(system, ours) for cell in columns.values())} |")
    return rows


def _find(system: Json, path: tuple[str, ...]) -> Any:
    value: Any = system
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _number(system: Json, path: tuple[str, ...], scale: float, digits: int) -> str:
    value = _find(system, path)
    return DASH if value is None else f"{value * scale:.{digits}f}"


def _timed(system: Json, ours: Json, stage: str, scale: float, digits: int) -> str:
    path = (stage, "median_s")
    theirs, mine = _find(system, path), _find(ours, path)
    ratio = f" ({theirs / mine:.2f}x)" if theirs and mine and system is not ours else ""
    return _number(system, path, scale, digits) + ratio


def _score(system: Json, path: tuple[str, ...]) -> str:
    found = _find(system, path)
    if found is None or found["rate"] is None:
        return DASH
    errors = found["substitutions"] + found["deletions"] + found["insertions"]
    return f"{100 * found['rate']:.1f} % ({errors}/{found['reference']})"


def _batch_line(model: Json) -> list[str]:
    batch = model.get("batch")
    if batch is None:
        return []
    same = "same text" if not batch["differing"] else f"{len(batch['differing'])} texts differ"
    text = (
        f"{batch['clips']} clips of 2 to 12 s ({batch['audio_s']:.0f} s in all): one by one "
        f"{batch['one_by_one']['median_s']:.2f} s, in batches {batch['batched']['median_s']:.2f} s: "
        f"{batch['gain']:.2f}x, {same}."
    )
    return ["", text]


def _goals_table(model: Json) -> list[str]:
    goals = list(_goals(model))
    if not goals:
        return []
    rows = ["", "| aim | at least | measured | |", "|---|---|---|---|"]
    return rows + [
        f"| {g.what} | {g.aim} | {g.figure} | {'reached' if g.margin >= 0 else 'not reached'} |" for g in goals
    ]


def _goals(model: Json) -> list[Goal]:
    systems = model["systems"]
    ours = systems.get(OURS)
    if ours is None:
        return []
    goals = [_faster(systems, "clip", "short clip", 3.3), _faster(systems, "long", "long recording", 1.8)]
    goals += [_no_worse(systems, "english", peers, 0.5) for peers in (("transformers",), FASTER_WHISPER)]
    goals += [_no_worse(systems, group, ("transformers",), 1.0) for group in ("other words", "other characters")]
    goals.append(
        _below(
            systems,
            ("invented", "words"),
            "invented words, against faster-whisper's defaults",
            ("faster-whisper",),
            1,
        )
    )
    goals.append(_below(systems, ("footprint", "peak_mb"), "peak memory above imports, MB", FASTER_WHISPER, 0))
    goals.append(_below(systems, ("footprint", "load_s"), "load time, s", FASTER_WHISPER, 0))
    goals.append(_below(systems, ("bytes",), "bytes on disk, against whisper.cpp's file", ("whisper.cpp",), 0))
    if "batch" in model:
        gain = model["batch"]["gain"]
        goals.append(Goal("batches, throughput", "1.4x", f"{gain:.2f}x", gain - 1.4))
    return [goal for goal in goals if goal is not None]


def _best(systems: Json, path: tuple[str, ...], names: tuple[str, ...]) -> float | None:
    """The least that any of these systems has: the hardest one to beat."""
    values = [_find(systems[name], path) for name in names if name in systems]
    return min((value for value in values if value is not None), default=None)


def _faster(systems: Json, stage: str, what: str, aim: float) -> Goal | None:
    mine = _find(systems[OURS], (stage, "median_s"))
    theirs = _best(systems, (stage, "median_s"), FASTER_WHISPER)
    if mine is None or theirs is None:
        return None
    return Goal(f"{what}, against the fastest faster-whisper", f"{aim}x", f"{theirs / mine:.2f}x", theirs / mine - aim)


def _no_worse(systems: Json, group: str, peers: tuple[str, ...], points: float) -> Goal | None:
    path = ("scores", group, "rate")
    mine, theirs = _find(systems[OURS], path), _best(systems, path, peers)
    if mine is None or theirs is None:
        return None
    worse = 100 * (mine - theirs)
    against = "the source in fp32" if peers == ("transformers",) else "the best faster-whisper"
    return Goal(f"{group} errors above {against}", f"<= {points} points", f"{worse:+.2f} points", points - worse)


def _below(systems: Json, path: tuple[str, ...], what: str, peers: tuple[str, ...], less_by: float) -> Goal | None:
    mine, theirs = _find(systems[OURS], path), _best(systems, path, peers)
    if mine is None or theirs is None:
        return None
    return Goal(what, f"< {theirs:.4g}" if less_by else f"<= {theirs:.4g}", f"{mine:.4g}", theirs - less_by - mine)


def _versions(result: Json) -> list[str]:
    found: dict[str, str] = {}
    for model in result["models"].values():
        for name, system in model["systems"].items():
            found[name] = ", ".join(f"{key} {value}" for key, value in system["about"].items())
    return [f"- {SYSTEMS[name].title}: {text}" for name, text in found.items()]
