"""That an adapter did something, before it is called done: it changes what the model says, the measure before and
after, and that merged matrices compute what base and adapter compute apart."""

import math
from dataclasses import dataclass

from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.model.adapted import merge_difference
from sottovoce_compiler.finetune.trainer.errors import TrainingError
from sottovoce_compiler.finetune.trainer.loop import Outcome
from sottovoce_compiler.finetune.trainer.progress import show_measure
from sottovoce_compiler.finetune.trainer.task import Task

MERGED_APART = 1e-3  # relative, in float32: rounding gives about 1e-6


@dataclass(frozen=True, slots=True)
class Proof:
    """`merged_apart` is the largest relative difference of a merged matrix's outputs from base + adapter's; `warnings`
    are what a user should see before using it."""

    merged_apart: float
    warnings: tuple[str, ...]


def prove(model: TrainingModel, task: Task, outcome: Outcome) -> Proof:
    """Raises TrainingError where the adapter changes nothing, or where merging it would change what it says."""
    adapted = model.adapted()
    if not any(bool(layer.lora_b.any()) for layer in adapted.values() if layer.lora_b is not None):
        raise TrainingError(
            "the adapter changes nothing (its B is zero everywhere); train longer or with a higher --learning-rate"
        )
    first, best = outcome.first, outcome.best
    if first is not None and best is not None and (first.loss, first.measure) == (best.loss, best.measure):
        raise TrainingError(
            f"the adapter changes nothing: the loss on the evaluation split is {first.loss:.6f} before and after; "
            "train longer or with a higher --learning-rate"
        )
    apart = merge_difference(adapted)
    if not apart.relative <= MERGED_APART:
        raise TrainingError(
            f"{apart.module} computes something else once its adapter is merged (relative difference "
            f"{apart.relative:.2g}): the weights may have overflowed; train with a lower --learning-rate"
        )
    return Proof(apart.relative, tuple(_warnings(task, outcome)))


def _warnings(task: Task, outcome: Outcome) -> list[str]:
    first, best = outcome.first, outcome.best
    if first is None or best is None:
        return ["nothing was measured: there is no evaluation split, so nobody knows whether it is better"]
    gain = first.measure - best.measure if task.lower_is_better else best.measure - first.measure
    if math.isfinite(gain) and gain > 0:
        return []
    before, after = (show_measure(task.measure, one.measure) for one in (first, best))
    return [f"it is not better on the evaluation split: {before} before, {after} after"]
