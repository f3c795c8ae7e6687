"""The loop: steps, evaluations and checkpoints of one run, from its beginning or from where it was stopped.

A step's gradient is that of the mean over every labelled token of the step, in all its batches and all processes: how
examples are packed, accumulated or spread does not change what is learned. Knows no task and no model.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer import checkpoint as saved
from sottovoce_compiler.finetune.trainer.checkpoint import Checkpoint, Position
from sottovoce_compiler.finetune.trainer.errors import CheckpointError, InterruptedTraining, TrainingError
from sottovoce_compiler.finetune.trainer.guards import GradientGuard, check_losses
from sottovoce_compiler.finetune.trainer.memory import peak_bytes
from sottovoce_compiler.finetune.trainer.schedule import factor
from sottovoce_compiler.finetune.trainer.stop import Stop
from sottovoce_compiler.finetune.trainer.strategy import Strategy
from sottovoce_compiler.finetune.trainer.task import Metrics, Step, Task
from sottovoce_compiler.finetune.trainer.watch import (
    EvaluationReport,
    StepReport,
    Watcher,
    Watchers,
    metrics_json,
    metrics_of,
)
from sottovoce_compiler.finetune.trainer.world import Alone, World

SAVE_SECONDS = 600.0  # no more than this is lost where power goes


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `settings` are completed; `folder` is where the checkpoint goes; `run` are the values without which a
    checkpoint is another run's (model, data, adapter, order of the data)."""

    task: Task
    strategy: Strategy
    settings: Settings
    folder: Path
    run: Mapping[str, Any] = field(default_factory=dict)
    world: World = field(default_factory=Alone)
    watcher: Watcher = field(default_factory=Watchers)
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run; the model holds the best of it. `first` was measured before the first step, `best` after
    `best_step`; None where there was nothing to measure on."""

    position: Position
    steps: int  # that were planned
    first: Metrics | None
    best: Metrics | None
    best_step: int
    stopped_early: bool


def planned_steps(task: Task, settings: Settings, world: World) -> int:
    """How many steps the settings ask for."""
    if settings.steps is not None:
        return settings.steps
    return sum(task.steps_in(epoch, world) for epoch in range(settings.epochs))


def train(job: Job, resume: Checkpoint | None = None) -> Outcome:
    """Runs until the steps are done or patience ends, and leaves the best parameters in the model and a checkpoint in
    the folder.

    Raises InterruptedTraining where it was asked to stop (the checkpoint is written), TrainingError for a loss or a
    gradient that is no number (the checkpoint before it stays), CheckpointError for a checkpoint of another run,
    SottovoceError for a full disk.
    """
    return _Training(job, resume).run()


class _Interrupted(Exception):
    """Asked to stop in the middle of an evaluation, which is then taken again."""


class _Training:
    def __init__(self, job: Job, resume: Checkpoint | None) -> None:
        self.job, self.settings = job, job.settings
        self.position = Position()
        self.best: Mapping[str, torch.Tensor] | None = None
        self.steps = planned_steps(job.task, job.settings, job.world)
        if self.steps < 1:
            raise TrainingError("there is nothing to train on: no step could be made of the data")
        self._guard = GradientGuard(scaled=job.strategy.scaled)
        self._device = next(p.device for _, p in job.strategy.model.named_parameters() if p.requires_grad)
        self._saved_at = time.monotonic()
        if resume is not None:
            self._restore(resume)

    def run(self) -> Outcome:
        """All of it."""
        self.job.strategy.model.train()
        try:
            if self.position.step == 0 and self.position.first is None:
                self._evaluate()
            while self.position.step < self.steps and not self._impatient():
                self._epoch()
            self._evaluate()
        except _Interrupted:
            self._stop()
        stopped_early = self.position.step < self.steps
        self._save()
        if self.best is not None and self.position.best_step != self.position.step:
            self.job.strategy.set_parameters(self.best)
        self.job.strategy.finish()
        return self._outcome(stopped_early)

    def _outcome(self, stopped_early: bool) -> Outcome:
        first, best = (
            None if values is None else metrics_of(values, self.job.task.measure)
            for values in (self.position.first, self.position.best)
        )
        step = self.position.step if best is None else self.position.best_step
        return Outcome(self.position, self.steps, first, best, step, stopped_early)

    def _epoch(self) -> None:
        """What is left of the epoch that the position is in."""
        job, position = self.job, self.position
        self._tell_stage("train", self.steps)
        for step in job.task.epoch(position.epoch, job.world, skip=position.step_in_epoch):
            self._step(step)
            if position.step >= self.steps:
                return
            if self.settings.eval_every is not None and position.step % self.settings.eval_every == 0:
                self._evaluate()
                if self._impatient():
                    return
                self._tell_stage("train", self.steps)
            stop, due = job.world.sum([float(job.stop.asked), float(self._due())])
            if stop:
                self._stop()
            if due:
                self._save()
        if position.step_in_epoch == 0:
            raise TrainingError(f"epoch {position.epoch + 1} of the data has no step")
        position.epoch, position.step_in_epoch = position.epoch + 1, 0
        if self.settings.eval_every is None:
            self._evaluate()

    def _step(self, step: Step) -> None:
        """One step of the optimizer."""
        began = time.monotonic()
        job, position = self.job, self.position
        seen, labelled = job.world.sum([float(sum(map(job.task.seen, step.batches))), float(step.labelled)])
        rate = (self.settings.learning_rate or 0.0) * factor(
            self.settings.schedule, position.step, self.steps, self.settings.warmup
        )
        losses = self._gradients(step, max(1.0, labelled))
        self._together(lambda: check_losses(step, losses, job.task, position.step + 1))
        norm = job.strategy.step(rate, self.settings.clip)
        self._together(lambda: self._guard.check(norm, step, job.task, position.step + 1))
        total = job.world.sum([sum(losses)])[0]
        position.step, position.step_in_epoch = position.step + 1, position.step_in_epoch + 1
        position.tokens, position.labelled = position.tokens + int(seen), position.labelled + int(labelled)
        position.last_loss = total / max(1.0, labelled)
        seconds = time.monotonic() - began
        position.seconds += seconds
        if job.world.is_main:
            memory = peak_bytes(self._device)
            where = (position.step, self.steps, position.epoch)
            job.watcher.step(
                StepReport(*where, position.last_loss, norm, rate, int(seen), int(labelled), seconds, memory)
            )

    def _gradients(self, step: Step, labelled: float) -> Sequence[float]:
        """The summed loss of each batch; the gradients of all of them are added up."""
        losses = []
        for number, batch in enumerate(step.batches, 1):
            loss = self.job.strategy.forward(batch.to(self._device)).total
            self.job.strategy.backward(loss / labelled, number == len(step.batches))
            losses.append(loss.detach())
        found: list[float] = torch.stack(losses).tolist()  # waits for the device once a step
        return found

    def _together(self, check: Any) -> None:
        """What one process raises, all raise: none may wait for one that has gone."""
        try:
            check()
            fault = None
        except TrainingError as error:
            fault = str(error)
        if self.job.world.size > 1:
            fault = next((one for one in self.job.world.gather(fault) if one is not None), None)
        if fault is not None:
            kept = (
                "" if not (self.job.folder / saved.FILE).exists() else f"; the checkpoint in {self.job.folder} is kept"
            )
            raise TrainingError(fault + kept)

    def _evaluate(self) -> None:
        """Takes the measure, once a step at most, keeps what is best, and saves."""
        job, position = self.job, self.position
        if not self.settings.measures or position.evaluated == position.step:
            return
        self._tell_stage("evaluate", 1)
        began = time.monotonic()
        model = job.strategy.model
        model.train(False)
        try:
            with torch.no_grad():
                metrics = job.task.evaluate(model, job.strategy.evaluating(job.world), self._part)
        finally:
            model.train()
        best = self._keep(metrics)
        if job.world.is_main:
            job.watcher.evaluation(EvaluationReport(position.step, metrics, best, time.monotonic() - began))
        self._save()

    def _keep(self, metrics: Metrics) -> bool:
        """Whether it is the best after a step; the first, before any, is only for comparison."""
        position, values = self.position, metrics_json(metrics, self.job.task.measure)
        position.evaluated = position.step
        if position.step == 0:
            position.first = values
            return False
        last = None if position.best is None else position.best[self.job.task.measure]
        better = math.isfinite(metrics.measure) and (
            last is None or (metrics.measure < last if self.job.task.lower_is_better else metrics.measure > last)
        )
        position.since_best = 0 if better else position.since_best + 1
        if better:
            position.best, position.best_step = values, position.step
            self.best = self.job.strategy.parameters()
        return better

    def _impatient(self) -> bool:
        return self.settings.patience is not None and self.position.since_best >= self.settings.patience

    def _part(self, done: float) -> None:
        if self.job.stop.asked and self.job.world.size == 1:
            raise _Interrupted
        if self.job.world.is_main:
            self.job.watcher.part(done)

    def _tell_stage(self, name: str, total: float) -> None:
        if self.job.world.is_main:
            self.job.watcher.stage(name, total)

    def _due(self) -> bool:
        """Whether the main process wants a checkpoint now."""
        every = self.settings.save_every
        late = time.monotonic() - self._saved_at > SAVE_SECONDS
        return self.job.world.is_main and (late or (every is not None and self.position.step % every == 0))

    def _save(self) -> None:
        job = self.job
        parameters, state = job.strategy.parameters(), job.strategy.state()
        generators = job.world.gather(saved.random_state())
        if job.world.is_main:
            saved.save(job.folder, Checkpoint(dict(job.run), self.position, parameters, self.best, state, generators))
        self._saved_at = time.monotonic()
        job.world.barrier()

    def _stop(self) -> None:
        self._save()
        raise InterruptedTraining(f"stopped after step {self.position.step} of {self.steps}; everything is saved")

    def _restore(self, found: Checkpoint) -> None:
        saved.check_run(found.run, self.job.run)
        try:
            self.job.strategy.set_parameters(found.parameters)
            self.job.strategy.set_state(found.strategy)
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint does not fit this model: {error}") from error
        if len(found.random) == self.job.world.size:
            saved.set_random_state(found.random[self.job.world.rank])
        self.position, self.best = found.position, found.best
