"""The smallest model and task that a trainer can train: a classifier of random points, with dropout, so that a run
depends on every generator of random numbers it should.

Run as a script it trains until somebody stops it:
    python fake_task.py FOLDER STEPS SECONDS_A_STEP
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sottovoce_compiler.finetune.model import Loss
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer.errors import InterruptedTraining
from sottovoce_compiler.finetune.trainer.loop import Job, Outcome, train
from sottovoce_compiler.finetune.trainer.stop import Stop, listening
from sottovoce_compiler.finetune.trainer.strategy import Plain
from sottovoce_compiler.finetune.trainer.task import Metrics, Progress, Step
from sottovoce_compiler.finetune.trainer.watch import EvaluationReport, StepReport
from sottovoce_compiler.finetune.trainer.world import World

POINTS, WIDTH, CLASSES, BATCH = 48, 12, 3, 4


@dataclass(frozen=True)
class Points:
    """`x` (n, WIDTH), `y` (n,) classes, -100 where nothing is to be learned."""

    x: torch.Tensor
    y: torch.Tensor
    lines: tuple[int, ...]

    @property
    def labelled(self) -> int:
        return int((self.y >= 0).sum())

    def to(self, device: torch.device | str) -> "Points":
        return Points(self.x.to(device), self.y.to(device), self.lines)


class Classifier(torch.nn.Module):
    checkpointing = False

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.frozen = torch.nn.Parameter(torch.randn(16, WIDTH, generator=generator), requires_grad=False)
        self.weight = torch.nn.Parameter(0.1 * torch.randn(CLASSES, 16, generator=generator))
        self.bias = torch.nn.Parameter(torch.zeros(CLASSES))
        self.dropout = dropout

    def forward(self, batch: Points) -> Loss:
        hidden = torch.nn.functional.dropout(torch.tanh(batch.x @ self.frozen.T), self.dropout, self.training)
        scores = hidden @ self.weight.T + self.bias
        total = torch.nn.functional.cross_entropy(scores, batch.y, reduction="sum", ignore_index=-100)
        return Loss(total, batch.labelled)

    def adapted(self) -> dict[str, Any]:
        return {}


@dataclass
class PointsTask:
    """`poison`: a line whose numbers are not numbers."""

    accumulation: int = 2
    measure: str = "accuracy"
    lower_is_better: bool = False
    poison: int | None = None
    delay: float = 0.0
    announced: bool = True  # else "ready" is printed when the first step begins
    given: list[int] = field(default_factory=list)  # epochs that were asked for
    measured: list[float] | None = None  # what evaluations find, in turn, instead of the truth
    evaluations: int = 0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(POINTS + 20, WIDTH, generator=generator)
        self.y = (self.x @ torch.randn(WIDTH, CLASSES, generator=generator)).argmax(1)
        if self.poison is not None:
            self.x[self.poison] = float("nan")

    def steps_in(self, epoch: int, world: World) -> int:
        return POINTS // BATCH // self.accumulation

    def epoch(self, epoch: int, world: World, skip: int = 0) -> Iterator[Step]:
        self.given.append(epoch)
        order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(epoch)).tolist()
        batches = [order[i : i + BATCH] for i in range(0, POINTS, BATCH)]
        for first in range(skip * self.accumulation, len(batches), self.accumulation):
            if not self.announced:
                self.announced = True
                print("ready", flush=True)
            time.sleep(self.delay)
            yield Step(tuple(self.batch(rows) for rows in batches[first : first + self.accumulation]))

    def batch(self, rows: list[int]) -> Points:
        y = self.y[rows].clone()
        y[: rows[0] % 3] = -100  # batches of a step have different numbers of labels
        return Points(self.x[rows], y, tuple(rows))

    def evaluate(self, model: Any, world: World, progress: Progress = lambda done: None) -> Metrics:
        assert not model.training and not torch.is_grad_enabled()
        progress(0.5)
        self.evaluations += 1
        x, y = self.x[POINTS:], self.y[POINTS:]
        scores = torch.tanh(x @ model.frozen.T) @ model.weight.T + model.bias
        loss = float(torch.nn.functional.cross_entropy(scores, y))
        right = float((scores.argmax(1) == y).float().mean())
        if self.measured is not None:
            right = self.measured[self.evaluations - 1]
        return Metrics(loss, len(y), right, len(y))

    def seen(self, batch: Points) -> int:
        return len(batch.x)

    def where(self, batch: Points) -> str:
        return f"points.jsonl, lines {', '.join(map(str, batch.lines))}"


@dataclass
class Record:
    """Everything that a run told."""

    steps: list[StepReport] = field(default_factory=list)
    evaluations: list[EvaluationReport] = field(default_factory=list)
    stop: Stop | None = None
    stop_after: int | None = None

    def stage(self, name: str, total: float) -> None: ...

    def part(self, done: float) -> None: ...

    def step(self, report: StepReport) -> None:
        self.steps.append(report)
        if self.stop is not None and report.step == self.stop_after:
            self.stop.ask()

    def evaluation(self, report: EvaluationReport) -> None:
        self.evaluations.append(report)

    def note(self, text: str) -> None: ...

    @property
    def losses(self) -> list[float]:
        return [report.loss for report in self.steps]


def settings(**changes: Any) -> Settings:
    given = {"epochs": 4, "learning_rate": 0.05, "dtype": "float32", **changes}
    return Settings(**given).completed("text", "cpu")


def job(folder: Path, task: PointsTask | None = None, record: Record | None = None, **changes: Any) -> Job:
    torch.manual_seed(3)
    chosen = settings(**changes)
    strategy = Plain(Classifier(), chosen.learning_rate or 0.0, chosen.weight_decay)
    stop = Stop()
    if record is not None:
        record.stop = stop
    watcher = Record() if record is None else record
    return Job(task or PointsTask(), strategy, chosen, folder, {"data": "points"}, watcher=watcher, stop=stop)


def trained(folder: Path, record: Record, **changes: Any) -> tuple[Job, Outcome]:
    made = job(folder, record=record, **changes)
    return made, train(made)


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = job(Path(sys.argv[1]), PointsTask(delay=float(sys.argv[3]), announced=False), steps=int(sys.argv[2]))
    made.stop._said = lambda text: print(text, flush=True)
    with listening(made.stop):
        try:
            train(made)
        except InterruptedTraining as error:
            print(error, flush=True)
            sys.exit(130)
