"""Fine-tuning, read from top to bottom: resolve -> data -> model -> train -> prove -> save.

While it trains, everything is in a folder beside the adapter's, from which it goes on; the adapter's own folder appears
whole at the end, or not at all. Knows neither command line nor screen.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sottovoce_compiler.finetune.adapter_folder import Card, check_folder, save_adapter
from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.preparation import Adaptable, Prepared, load_model, prepare
from sottovoce_compiler.finetune.proof import Proof, prove
from sottovoce_compiler.finetune.run_folder import RunFolder, portable
from sottovoce_compiler.finetune.trainer import checkpoint as saved
from sottovoce_compiler.finetune.trainer import curve, log
from sottovoce_compiler.finetune.trainer.checkpoint import Checkpoint
from sottovoce_compiler.finetune.trainer.loop import Job, Outcome, train
from sottovoce_compiler.finetune.trainer.progress import show_measure
from sottovoce_compiler.finetune.trainer.stop import Stop, listening
from sottovoce_compiler.finetune.trainer.strategy import Launch, trained
from sottovoce_compiler.finetune.trainer.task import Metrics
from sottovoce_compiler.finetune.trainer.watch import Watcher, Watchers, metrics_json
from sottovoce_compiler.finetune.trainer.world import World
from sottovoce_compiler.sources import resolve

Tell = Callable[[str], None]  # a line
BESIDE = (log.FILE, curve.FILE)  # in the adapter's folder, beside PEFT's files
Show = Callable[[str], AbstractContextManager[Watcher]]  # a measure's name -> what shows the training
# oneDNN, with which torch multiplies on a CPU, keeps 1,024 compiled multiplications with their memory, one for a shape,
# and packed batches hardly ever have a shape twice: 30 steps of 256 tokens took 640 MB more than the first. With 64
# kept it was 410 MB, at the same speed.
_ONEDNN_KEEPS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"


@dataclass(frozen=True, slots=True)
class Request:
    """What to train, on what, to where. `overrides` are options by name, `config` a file of others."""

    source: str
    output: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Finetuned:
    """An adapter in its place, and what came of the training. `seconds` are those of all stages in this process."""

    adapter: Path
    prepared: Prepared
    outcome: Outcome
    proof: Proof
    trainable: int  # parameters
    seconds: float

    @property
    def loss(self) -> float | None:
        """On the evaluation split, of what is kept; of the last step where there is no such split."""
        best = self.outcome.best
        found = self.outcome.position.last_loss if best is None else best.loss
        return found if math.isfinite(found) else None

    def to_json(self) -> dict[str, Any]:
        """One object for scripts."""
        outcome, measure = self.outcome, self.prepared.task.measure

        def shown(metrics: Metrics | None) -> dict[str, Any] | None:
            return None if metrics is None else metrics_json(metrics, measure)

        return {
            "adapter": str(self.adapter),
            "steps": outcome.position.step,
            "loss": self.loss,
            "metrics": {"measure": measure, "before": shown(outcome.first), "after": shown(outcome.best)},
            "kept_step": outcome.best_step,
            "stopped_early": outcome.stopped_early,
            "trainable": self.trainable,
            "tokens": outcome.position.tokens,
            "labelled": outcome.position.labelled,
            "training_seconds": round(outcome.position.seconds, 2),
            "seconds": round(self.seconds, 2),
            "merged_difference": self.proof.merged_apart,
            "warnings": list(self.proof.warnings),
            "data": dict(self.prepared.data.to_json()),
            "settings": self.prepared.settings.to_json(),
        }


def prepare_request(request: Request, tell: Tell, world: World) -> tuple[Prepared, Checkpoint | None, RunFolder]:
    """The first half, in which everything that can be wrong is found without reading a weight: what a run is made of,
    the checkpoint that it goes on from, and where it keeps itself."""
    folder = RunFolder(check_folder(request.output, BESIDE), request.output)
    found = folder.checkpoint() if request.resume else None
    if found is None:
        folder.check_new()
    settings = folder.settings(request.config, request.overrides, resume=request.resume)
    tell("resolve")
    checkpoint = resolve(request.source)
    tell("data")
    prepared = prepare(checkpoint, settings)
    if found is not None:
        saved.check_run(found.run, prepared.identity(world.size))
    return prepared, found, folder


def finetune(request: Request, show: Show, tell: Tell = lambda text: None, launch: Launch | None = None) -> Finetuned:
    """All of it. Raises what `prepare` and `train` raise, and TrainingError where the adapter changed nothing."""
    began, launch = time.monotonic(), launch or Launch()
    os.environ.setdefault(*_ONEDNN_KEEPS)  # read at the first multiplication
    prepared, found, folder = prepare_request(request, tell, launch.world)
    launch.world.barrier()  # nobody looks for what is in the way when the main process has begun to write
    for note in (prepared.packing.reason, *prepared.data.notes()):
        tell(note)
    tell("model")
    model = load_model(prepared)
    outcome = _train(prepared, model, found, folder, show, launch)
    proof = prove(model, prepared.task, outcome)
    if launch.world.is_main:
        _save(prepared, model, outcome, folder)
        folder.remove()
    launch.world.barrier()
    counted = sum(one.numel() for one in trained(model).values())
    return Finetuned(request.output, prepared, outcome, proof, counted, time.monotonic() - began)


def _train(
    prepared: Prepared,
    model: TrainingModel,
    found: Checkpoint | None,
    folder: RunFolder,
    show: Show,
    launch: Launch,
) -> Outcome:
    settings, measure, world = prepared.settings, prepared.task.measure, launch.world
    watchers: list[Watcher] = []
    if world.is_main:
        folder.open(settings)
        watchers.append(log.Log(folder.path, measure, after=found.position.step if found else 0))
    saved.seed_all(settings.seed)
    strategy = launch.wrap(model, settings)
    with show(measure) as shown, listening(Stop(shown.note)) as stop:
        run, all_of = prepared.identity(world.size), Watchers([shown, *watchers])
        try:
            return train(Job(prepared.task, strategy, settings, folder.path, run, world, all_of, stop), found)
        finally:
            if world.is_main:
                folder.remove_if_empty()


def _save(prepared: Prepared, model: Adaptable, outcome: Outcome, folder: RunFolder) -> None:
    """The adapter's folder, whole: PEFT's files, a model card, the settings in effect, the log and its picture."""
    settings, checkpoint, measure = prepared.settings, prepared.checkpoint, prepared.task.measure
    data = Path(settings.data or "").name
    picture = folder.path / curve.FILE
    curve.draw(curve.Course.of(list(log.read_log(folder.path)), measure), f"{checkpoint.name} on {data}", picture)
    card = Card(
        base=checkpoint.spec if "/" in checkpoint.spec and not Path(checkpoint.spec).exists() else checkpoint.name,
        base_licence=checkpoint.licence,
        base_revision=checkpoint.revision,
        task_type=prepared.task_type,
        data={data: prepared.data.sha256},
        measured=_measured(outcome, measure),
    )
    others = {name: (folder.path / name).read_bytes() for name in BESIDE}
    save_adapter(folder.output, model.linears(), card, portable(settings), others)


def _measured(outcome: Outcome, measure: str) -> dict[str, str | float]:
    """For the card: before and after, on what."""
    found: dict[str, str | float] = {"optimizer steps": float(outcome.best_step)}
    for when, metrics in (("before", outcome.first), ("after", outcome.best)):
        if metrics is not None:
            found[f"held-out loss {when}"] = metrics.loss
            if measure != "loss":
                found[f"{measure.replace('_', ' ')} {when}, of {metrics.examples}"] = show_measure(
                    measure, metrics.measure
                ).rpartition(" ")[2]
    return found
