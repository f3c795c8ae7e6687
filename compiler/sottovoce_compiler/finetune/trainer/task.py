"""What the trainer needs of a kind of task: the steps of an epoch, and how good the model is by the task's own measure.

Knows nothing of what a batch holds, but how much of it is learned from.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch

from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.trainer.world import World

# How much of an evaluation is done, 0 to 1.
Progress = Callable[[float], None]


class Batch(Protocol):
    """What one forward pass is given."""

    @property
    def labelled(self) -> int:
        """Tokens of which loss is computed."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step of one process is made of: forward passes whose gradients are added up.

    Every process gets as many batches at a step as every other; one that has no data left for it gets a batch whose
    labels are all ignored (`labelled` is 0).
    """

    batches: tuple[Any, ...]  # each a `Batch` that the task's model takes

    @property
    def labelled(self) -> int:
        """Tokens of which loss is computed, in all of them."""
        return sum(batch.labelled for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an evaluation found. `loss` is the mean over `tokens` labelled tokens, in nats; `measure` the task's own
    (the loss again where that is it), taken on `examples` examples. `more` is for the log, by name."""

    loss: float
    tokens: int
    measure: float
    examples: int
    more: Mapping[str, float | int | str] = field(default_factory=dict)


class Task(Protocol):
    """Data and a measure. The same task gives the same steps each time it is asked, whatever was asked before: its seed
    is its own."""

    @property
    def measure(self) -> str:
        """The name of the measure: "loss", "exact_match", "wer", ..."""
        ...

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller measure is the better one."""
        ...

    def steps_in(self, epoch: int, world: World) -> int:
        """How many steps `epoch` gives; the same in every process."""
        ...

    def epoch(self, epoch: int, world: World, skip: int = 0) -> Iterator[Step]:
        """This process's steps of an epoch (0 is the first), from step `skip` on; what is skipped is not loaded.

        Together the processes see every example of the training split once.
        """
        ...

    def evaluate(self, model: TrainingModel, world: World, progress: Progress = lambda done: None) -> Metrics:
        """The measure on the evaluation split, over all processes; called without gradients and in evaluation mode.
        Consumes no random numbers of torch's, Python's or NumPy's global generators."""
        ...

    def seen(self, batch: Any) -> int:
        """Tokens of a batch that go through the model, learned from or not: what tokens a second count."""
        ...

    def where(self, batch: Any) -> str:
        """Which lines of the data a batch is made of, for messages: "train.jsonl, lines 3, 17 and 20"."""
        ...
