"""What must not be trained on: a loss or a gradient that is no number. Finds out which data it came from.

Knows no way to mend it: what was there before the step is kept, and the message says where to look.
"""

import math
from collections.abc import Sequence
from typing import Any

from sottovoce_compiler.finetune.trainer.errors import TrainingError
from sottovoce_compiler.finetune.trainer.task import Step, Task

OVERFLOWS = 20  # steps in a row that float16 may leave out while its factor comes down


def check_losses(step: Step, losses: Sequence[float], task: Task, number: int) -> None:
    """Raises TrainingError naming the first batch of `step` whose loss (`losses`, one a batch) is no finite number."""
    for batch, loss in zip(step.batches, losses, strict=True):
        if not math.isfinite(loss):
            raise _fault(f"the loss is {loss}", task.where(batch), number)


class GradientGuard:
    """Watches the norms of gradients. `scaled`: float16, in which some overflow at first and are left out."""

    def __init__(self, *, scaled: bool) -> None:
        self._allowed = OVERFLOWS if scaled else 0
        self._seen = 0

    def check(self, norm: float, step: Step, task: Task, number: int) -> None:
        """Raises TrainingError naming the data of `step` where its norm is no finite number once too often."""
        self._seen = 0 if math.isfinite(norm) else self._seen + 1
        if self._seen > self._allowed:
            raise _fault(f"the gradient is {norm}", _all(step.batches, task), number)


def _all(batches: Sequence[Any], task: Task) -> str:
    return "; ".join(dict.fromkeys(task.where(batch) for batch in batches))


def _fault(what: str, where: str, number: int) -> TrainingError:
    return TrainingError(
        f"step {number}: {what} in {where}; that step was not taken. A lower --learning-rate, or --dtype float32, may "
        "help where the data is sound"
    )
