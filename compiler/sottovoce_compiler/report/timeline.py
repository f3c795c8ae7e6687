"""Words on a time line: when each was spoken, first shown, and final. As a picture, and as text for a terminal.

Knows the timings of one clip and the figures of the whole scorecard. Measures nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sottovoce.errors import InputError
from sottovoce.streaming.events import SpeechEnded, SpeechStarted
from sottovoce_compiler.report.stream import StreamClip, StreamScorecard, describe
from sottovoce_compiler.report.stream_score import WordTiming

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SECONDS_SHOWN = 30.0  # more words than this holds are no longer legible side by side
_INCHES = (15.0, 6.4)
_DOTS = 130  # an inch
_INK, _FAINT, _SPEECH = "#1f2933", "#8a96a3", "#e8eef4"
_SHOWN, _COMMITTED = "#e08a1e", "#1c6dd0"
_LETTERS = 15  # of a word below the picture
_NARROWEST = 40  # columns of a terminal

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TimeLine:
    """What is drawn: words in order, stretches of speech, and the part of the clip that is shown; seconds."""

    name: str
    words: tuple[WordTiming, ...]
    speech: tuple[Span, ...]
    span: Span


def time_line(card: StreamScorecard) -> TimeLine:
    """The clip with the most timed words; of a long one the part with the most. Raises InputError without words."""
    clip = max(card.clips, key=lambda one: len(one.score.timings), default=None)
    if clip is None or not clip.score.timings:
        raise InputError(f"nothing to draw: no word that was streamed of {card.dataset} has a known end")
    words = sorted(clip.score.timings, key=lambda word: word.end)
    start, stop = _fullest(words, clip.run.audio_seconds)
    inside = tuple(word for word in words if start <= word.end <= stop)
    return TimeLine(Path(clip.clip.name).name, inside, tuple(_speech(clip)), (start, stop))


def draw(card: StreamScorecard, name: str, path: Path) -> None:
    """Writes a PNG at `path` for the model called `name`. Raises InputError where there is nothing to draw or no place
    to write."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    line = time_line(card)
    figure = Figure(figsize=_INCHES, dpi=_DOTS, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.055, 0.225, 0.835, 0.595))
    _draw_words(axes, line)
    _draw_levels(axes, card)
    _draw_frame(axes, line)
    figure.text(0.055, 0.955, f"{name}: spoken, shown, committed", size=15, weight="bold", color=_INK, va="top")
    figure.text(0.055, 0.9, "\n".join(_subtitle(card, line)), size=9, color=_FAINT, va="top", linespacing=1.5)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; name a file in a folder that can be written"
        ) from None


def strip(card: StreamScorecard, width: int = 80) -> list[str]:
    """Lines of at most `width` columns (40 at least), one a word: a ruler of the delay, with a ring where the word was
    first shown and a dot where it became final. Raises InputError where there is nothing to draw."""
    line, width = time_line(card), max(width, _NARROWEST)
    longest = min(max(len(word.word) for word in line.words), width // 4)
    room = width - longest - 16
    low = min(0.0, *(word.shown_delay for word in line.words))
    high = max(0.5, *(word.commit_delay for word in line.words))

    def place(delay: float) -> int:
        return round((min(max(delay, low), high) - low) / (high - low) * (room - 1))

    legend = f"○ first shown  ● committed  {line.name}, {line.span[0]:.0f} to {line.span[1]:.0f} s"
    zero, last = place(0), f"{high:.1f} s"
    ruler = f"{'ends':>7}  {'word':<{longest}} {' ' * zero}0{last:>{room - zero - 1}} {'delay':>5}"
    rows = (_row(word, longest, room, zero, place(word.shown_delay), place(word.commit_delay)) for word in line.words)
    return [legend[:width], ruler, *rows]


def _row(word: WordTiming, longest: int, room: int, end: int, shown: int, committed: int) -> str:
    cells = [" "] * room
    cells[end] = "|"
    cells[shown : committed + 1] = "─" * (committed + 1 - shown)
    cells[shown], cells[committed] = "○", "●"
    return f"{word.end:7.2f}  {word.word[:longest]:<{longest}} {''.join(cells)} {word.commit_delay:5.2f}"


def _fullest(words: Sequence[WordTiming], seconds: float) -> Span:
    """The stretch of what can be shown that holds the most words."""
    if seconds <= SECONDS_SHOWN:
        return 0.0, seconds
    first = last = best = count = 0
    for first in range(len(words)):
        while last < len(words) and words[last].end < words[first].end + SECONDS_SHOWN - 1:
            last += 1
        if last - first > count:
            best, count = first, last - first
    start = max(0.0, words[best].end - 1)
    return start, start + SECONDS_SHOWN


def _speech(clip: StreamClip) -> Iterator[Span]:
    began: float | None = None
    for one in clip.run.events:
        if isinstance(one.event, SpeechStarted):
            began = one.event.time
        elif isinstance(one.event, SpeechEnded) and began is not None:
            yield began, one.event.time
            began = None


def _draw_words(axes: "Axes", line: TimeLine) -> None:
    axes.margins(y=0.08)
    for start, end in line.speech:
        axes.axvspan(start, end, color=_SPEECH, lw=0, zorder=0)
    ends = [word.end for word in line.words]
    shown, final = ([getattr(w, which) for w in line.words] for which in ("shown_delay", "commit_delay"))
    axes.vlines(ends, shown, final, color=_FAINT, lw=1.0, alpha=0.7, zorder=2)
    axes.scatter(ends, shown, s=22, facecolors="white", edgecolors=_SHOWN, lw=1.4, zorder=3, label="first shown")
    axes.scatter(ends, final, s=24, color=_COMMITTED, zorder=4, label="committed")
    shortest = (line.span[1] - line.span[0]) / 105  # what a line of text takes across the picture
    free = line.span[0]
    for word in line.words:
        if word.end >= free:
            axes.annotate(
                word.word if len(word.word) <= _LETTERS else f"{word.word[: _LETTERS - 1]}…",
                (word.end, 0),
                (0, -22),
                ("data", "axes fraction"),
                "offset points",
                rotation=90,
                ha="center",
                va="top",
                size=7.5,
                color=_INK,
                annotation_clip=False,
            )
            free = word.end + shortest


def _draw_levels(axes: "Axes", card: StreamScorecard) -> None:
    """Lines for the figures of the whole run, their names at the right, apart where the lines are close."""
    axes.axhline(0, color=_INK, lw=1.0, zorder=1)
    low, high = axes.get_ylim()
    free = low
    for value, text, color, style in sorted(_levels(card)):
        axes.axhline(value, color=color, lw=1.1, ls=style, alpha=0.8, zorder=1)
        place = max(value, free)
        axes.annotate(
            f"{text} {value:.2f} s",
            (1, place),
            (6, 0),
            ("axes fraction", "data"),
            "offset points",
            va="center",
            size=8.5,
            color=color,
            annotation_clip=False,
        )
        free = place + (high - low) / 24  # a line of text


def _levels(card: StreamScorecard) -> Iterator[tuple[float, str, str, str]]:
    if found := card.score.commit_delay:
        yield found.mean, "commit mean", _COMMITTED, "-"
        yield found.p90, "commit p90", _COMMITTED, "--"
    if found := card.score.shown_delay:
        yield found.p50, "first shown p50", _SHOWN, "-"


def _draw_frame(axes: "Axes", line: TimeLine) -> None:
    axes.set_xlim(*line.span)
    axes.set_xlabel("seconds in the recording (shaded: speech)", color=_INK, labelpad=66)
    axes.set_ylabel("seconds behind the word's end", color=_INK)
    axes.grid(axis="y", color=_FAINT, alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)


def _subtitle(card: StreamScorecard, line: TimeLine) -> Iterator[str]:
    compute = "compute charged" if card.machine else "compute not charged"
    yield f"{describe(card.settings)}, {compute}"
    rates = [
        f"{what} {rate:.1%}"
        for what, rate in (("WER", card.streamed.wer), ("offline", card.offline.wer))
        if rate is not None
    ]
    if (rewritten := card.score.rewritten_per_word) is not None:
        rates.append(f"{rewritten:.2f} rewritten words a word")
    drawn = f"drawn: {line.name}, {len(line.words)} words"
    yield ", ".join([f"{card.dataset}: {len(card.score.timings)} words", *rates, drawn])
