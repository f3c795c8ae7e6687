"""The course of a run as a picture: the loss of every step, what evaluations found, and which step is kept.

Knows the log's lines. Measures nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sottovoce.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "curve.png"
_INCHES, _DOTS = (10.0, 5.6), 140
_INK, _FAINT, _TRAIN, _EVAL, _OWN = "#1f2933", "#8a96a3", "#8bb3e3", "#1c6dd0", "#e08a1e"
_SPAN = 0.02  # share of the steps over which the drawn mean forgets

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Course:
    """Steps and what was found at each: of training, of evaluations by loss and by `measure`; `kept` is the step whose
    adapter is kept, None where nothing was measured."""

    measure: str
    train: Points
    loss: Points
    own: Points
    kept: int | None

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], measure: str) -> "Course":
        """From the lines of a log. InputError where no step is in it."""
        steps = [line for line in lines if line.get("event") == "step" and line.get("loss") is not None]
        if not steps:
            raise InputError("nothing to draw: the log has no step")
        found = [line for line in lines if line.get("event") == "evaluation" and line.get("loss") is not None]
        kept = [int(line["step"]) for line in found if line.get("best")]
        return cls(
            measure,
            [(int(line["step"]), float(line["loss"])) for line in steps],
            [(int(line["step"]), float(line["loss"])) for line in found],
            [(int(one["step"]), float(one[measure])) for one in found if measure != "loss" and measure in one],
            kept[-1] if kept else None,
        )


def draw(course: Course, title: str, path: Path) -> None:
    """Writes a PNG at `path`. Raises InputError where there is no place to write."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.115, 0.845, 0.69))
    _draw_losses(axes, course)
    if course.own:
        _draw_own(axes, course)
    _draw_kept(axes, course)
    figure.text(0.075, 0.955, title, size=14, weight="bold", color=_INK, va="top")
    figure.text(0.075, 0.9, _subtitle(course), size=9.5, color=_FAINT, va="top")
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def smooth(points: Points, span: float) -> Points:
    """The mean that forgets exponentially over `span` points, unbiased at its start (Kingma and Ba, arXiv 1412.6980,
    section 3)."""
    keep, mean, weight, found = math.exp(-1 / max(1.0, span)), 0.0, 0.0, []
    for step, value in points:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        found.append((step, mean / weight))
    return found


def _draw_losses(axes: "Axes", course: Course) -> None:
    axes.plot(*zip(*course.train, strict=True), color=_TRAIN, lw=0.8, alpha=0.55, zorder=1)
    even = smooth(course.train, _SPAN * len(course.train))
    axes.plot(*zip(*even, strict=True), color=_TRAIN, lw=2.0, zorder=2, label="training loss")
    if course.loss:
        axes.plot(
            *zip(*course.loss, strict=True), color=_EVAL, lw=1.4, marker="o", ms=5, zorder=4, label="held-out loss"
        )
    values = [value for _, value in [*even, *course.loss]]
    high = max(values) + 0.08 * (max(values) - min(values) + 1e-9)
    axes.set_ylim(max(0.0, min(value for _, value in [*course.train, *course.loss]) - 0.05 * high), high)
    axes.set_xlabel("optimizer steps", color=_INK)
    axes.set_ylabel("loss, nats a token", color=_EVAL)
    axes.grid(axis="y", color=_FAINT, alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    last = max(step for step, _ in course.train)
    axes.set_xlim(-0.02 * last, 1.02 * last)


def _draw_own(axes: "Axes", course: Course) -> None:
    beside = axes.twinx()
    name = course.measure.replace("_", " ")
    beside.plot(*zip(*course.own, strict=True), color=_OWN, lw=1.8, marker="s", ms=5, label=name)
    beside.set_ylabel(name, color=_OWN)
    beside.yaxis.set_major_formatter("{x:.0%}")
    beside.set_ylim(bottom=0)
    beside.spines[["top", "left"]].set_visible(False)
    beside.tick_params(colors=_INK)


def _draw_kept(axes: "Axes", course: Course) -> None:
    handles = [handle for one in axes.figure.axes for handle in one.get_legend_handles_labels()[0]]
    if course.kept is not None:
        handles.append(axes.axvline(course.kept, color=_INK, lw=1.0, ls=":", zorder=0, label="kept"))
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles), frameon=False)


def _subtitle(course: Course) -> str:
    said = [f"{len(course.train)} steps"]
    if course.loss:
        said.append(f"held-out loss {course.loss[0][1]:.3f} to {_at(course.loss, course.kept):.3f}")
    if course.own:
        name = course.measure.replace("_", " ")
        said.append(f"{name} {course.own[0][1]:.1%} to {_at(course.own, course.kept):.1%}")
    return ", ".join(said) + ("" if course.kept is None else f"; step {course.kept} is kept")


def _at(points: Points, step: int | None) -> float:
    return next((value for at, value in points if at == step), points[-1][1])
