"""What a run tells while it goes on, and who may listen: the screen, the log, a test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sottovoce_compiler.finetune.trainer.task import Metrics


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step. `loss` is the mean over its labelled tokens, nats; `norm` the gradient's before it was cut;
    `tokens` and `seconds` are those of this step, over all processes; `memory` bytes at the peak."""

    step: int  # 1 is the first
    steps: int
    epoch: int  # 0 is the first
    loss: float
    norm: float
    rate: float
    tokens: int
    labelled: int
    seconds: float
    memory: int | None


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """One evaluation, after `step` steps. `best`: the measure is better than ever before."""

    step: int
    metrics: Metrics
    best: bool
    seconds: float


class Watcher(Protocol):
    """Called in the main process alone."""

    def stage(self, name: str, total: float) -> None:
        """Something begins: "evaluate" before the first step, "train", "evaluate", ...; `total` steps, or 1."""
        ...

    def part(self, done: float) -> None:
        """How much of an evaluation is done, 0 to 1."""
        ...

    def step(self, report: StepReport) -> None:
        """A step was taken."""
        ...

    def evaluation(self, report: EvaluationReport) -> None:
        """The measure was taken."""
        ...

    def note(self, text: str) -> None:
        """Something that a user wants to know, in one line."""
        ...


@dataclass(frozen=True, slots=True)
class Watchers:
    """Several as one."""

    all: Sequence[Watcher] = ()

    def stage(self, name: str, total: float) -> None:
        """Tells each."""
        for one in self.all:
            one.stage(name, total)

    def part(self, done: float) -> None:
        """Tells each."""
        for one in self.all:
            one.part(done)

    def step(self, report: StepReport) -> None:
        """Tells each."""
        for one in self.all:
            one.step(report)

    def evaluation(self, report: EvaluationReport) -> None:
        """Tells each."""
        for one in self.all:
            one.evaluation(report)

    def note(self, text: str) -> None:
        """Tells each."""
        for one in self.all:
            one.note(text)


def metrics_json(metrics: Metrics, measure: str) -> dict[str, Any]:
    """Metrics as JSON values, the measure under its own name."""
    found: dict[str, Any] = {"loss": metrics.loss, "tokens": metrics.tokens, measure: metrics.measure}
    return {**found, "examples": metrics.examples, **metrics.more}


def metrics_of(values: Mapping[str, Any], measure: str) -> Metrics:
    """What `metrics_json` wrote."""
    more = {key: value for key, value in values.items() if key not in {"loss", "tokens", measure, "examples"}}
    return Metrics(values["loss"], values["tokens"], values[measure], values["examples"], more)
