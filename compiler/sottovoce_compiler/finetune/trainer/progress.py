"""A run on the screen: a bar on a terminal, a line now and then elsewhere. Both on stderr.

Knows how fast it went lately, and from that how long it will take. Knows nothing of models.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from sottovoce.cli.progress import clock
from sottovoce_compiler.finetune.trainer.watch import EvaluationReport, StepReport, Watcher, Watchers

RECENT = 50  # steps that speed is taken from
LINES = 25  # a run that no terminal shows prints about so many
LINE_SECONDS = 60.0  # and one at least so often


class Pace:
    """How fast the last steps went, and what was seen besides."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float, float]] = deque(maxlen=RECENT)

    def add(self, report: StepReport) -> None:
        """Takes a step in."""
        self._steps.append((report.tokens, report.seconds, report.loss))

    @property
    def tokens_per_second(self) -> float:
        """Of the last steps, evaluations left out."""
        return sum(tokens for tokens, _, _ in self._steps) / max(1e-9, sum(seconds for _, seconds, _ in self._steps))

    @property
    def loss(self) -> float:
        """Mean of the last steps."""
        return sum(loss for _, _, loss in self._steps) / max(1, len(self._steps))

    def left(self, report: StepReport) -> float:
        """Seconds until the last step is done, evaluations left out."""
        mean = sum(seconds for _, seconds, _ in self._steps) / max(1, len(self._steps))
        return mean * (report.steps - report.step)


@contextmanager
def shown(measure: str, stream: TextIO | None = None) -> Iterator[Watcher]:
    """The watcher that suits `stream` (stderr)."""
    out = stream or sys.stderr
    if not out.isatty():
        yield Lines(measure, out)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=Console(file=out), expand=True) as bars:
        yield Bar(measure, bars)


@contextmanager
def unseen(measure: str) -> Iterator[Watcher]:
    """A watcher that shows nothing: for a process that is not the main one."""
    yield Watchers()


class Lines:
    """A line of text every few steps, one an evaluation."""

    def __init__(self, measure: str, stream: TextIO) -> None:
        self._measure, self._stream = measure, stream
        self._pace = Pace()
        self._said_at = time.monotonic()

    def stage(self, name: str, total: float) -> None:
        """Only the evaluation is announced: it takes its time and says nothing until it is done."""
        if name == "evaluate":
            self.note("evaluate")

    def part(self, done: float) -> None:
        """Not shown."""

    def step(self, report: StepReport) -> None:
        """A line, if it is time for one."""
        self._pace.add(report)
        every = max(1, report.steps // LINES)
        if report.step % every == 0 or report.step in (1, report.steps) or self._silent() > LINE_SECONDS:
            self.note(f"step {report.step} of {report.steps}, {facts(report, self._pace)}")

    def evaluation(self, report: EvaluationReport) -> None:
        """A line."""
        self.note(describe(report, self._measure))

    def note(self, text: str) -> None:
        """A line."""
        self._said_at = time.monotonic()
        print(f"sottovoce: {text}", file=self._stream, flush=True)

    def _silent(self) -> float:
        return time.monotonic() - self._said_at


class Bar:
    """One bar for the steps and one for an evaluation, above them what evaluations found."""

    def __init__(self, measure: str, bars: Any) -> None:
        self._measure, self._bars = measure, bars
        self._pace = Pace()
        self._train: Any = None
        self._part: Any = None

    def stage(self, name: str, total: float) -> None:
        """A bar begins, or the bar of the steps goes on."""
        if name == "evaluate":
            self._part = self._bars.add_task(name, total=100, facts="")
        elif self._train is None:
            self._train = self._bars.add_task(name, total=total, facts="")

    def part(self, done: float) -> None:
        """Of an evaluation."""
        if self._part is not None:
            self._bars.update(self._part, completed=round(100 * done))

    def step(self, report: StepReport) -> None:
        """The bar moves."""
        self._pace.add(report)
        if self._train is not None:
            self._bars.update(self._train, completed=report.step, facts=facts(report, self._pace))

    def evaluation(self, report: EvaluationReport) -> None:
        """A line above the bars; that of the evaluation goes."""
        if self._part is not None:
            self._bars.remove_task(self._part)
            self._part = None
        self.note(describe(report, self._measure))

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)


def facts(report: StepReport, pace: Pace) -> str:
    """What is said of a step: mean loss lately, speed, memory, time left."""
    memory = "" if report.memory is None else f", {report.memory / 1e9:.1f} GB"
    speed = f"{pace.tokens_per_second:,.0f} tokens/s"
    return f"loss {pace.loss:.3f}, {speed}{memory}, {clock(pace.left(report))} left"


def describe(report: EvaluationReport, measure: str) -> str:
    """What is said of an evaluation."""
    metrics = report.metrics
    where = f"after step {report.step}" if report.step else "before training"
    own = "" if measure == "loss" else f", {show_measure(measure, metrics.measure)} of {metrics.examples}"
    mark = ", the best so far" if report.best and report.step else ""
    return f"{where}: loss {metrics.loss:.4f}{own} ({clock(report.seconds)}){mark}"


def show_measure(measure: str, value: float) -> str:
    """A measure by its name, as people read it."""
    return f"loss {value:.4f}" if measure == "loss" else f"{measure.replace('_', ' ')} {value:.1%}"
