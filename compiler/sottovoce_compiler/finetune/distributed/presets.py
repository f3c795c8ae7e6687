"""Which way of training in several processes suits a model and a machine: decisions, by the sizes of both.

Knows bytes. Knows no library but whether it is there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import torch

from sottovoce.memory import available_bytes
from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer.strategy import Strategy

Preset = Literal["ddp", "fsdp2", "zero2", "zero3"]
# What frozen weights may take of a process's memory: the rest is for activations, gradients and what torch keeps.
SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Decision:
    """A preset and why; with `offload` DeepSpeed keeps what it shares out in main memory."""

    preset: Preset
    offload: bool
    reason: str


def decide(asked: str, weights: int, memory: int | None, size: int, *, has_deepspeed: bool) -> Decision:
    """What to do for frozen `weights` (bytes) on `size` processes with `memory` bytes each (None: not known).

    `asked` is a preset or "auto".
    """
    whole, part = f"{weights / 1e9:.2f} GB of weights", weights / size
    if asked in ("ddp", "fsdp2", "zero2"):
        return Decision(asked, False, "as asked for")  # type: ignore[arg-type]
    if memory is None:
        return Decision("zero3" if asked == "zero3" else "ddp", False, f"{whole}, and no telling what fits")
    room, there = SHARE * memory, f"{memory / 1e9:.1f} GB"
    if asked == "zero3":
        return Decision("zero3", part > room, "as asked for")
    if weights <= room:
        return Decision("ddp", False, f"{whole} fit into each process, of {there}")
    if part <= room or not has_deepspeed:
        return Decision("fsdp2", False, f"{whole} are too much for one process's {there}; shared out")
    return Decision("zero3", True, f"{whole}, even shared out, are too much for {there}; in main memory")


def decide_for(model: TrainingModel, settings: Settings, size: int, local_size: int) -> Decision:
    """`decide` for a model that has been made, on this machine, of whose processes `local_size` are here."""
    module: Any = model
    weights = sum(one.numel() * one.element_size() for one in [*module.parameters(), *module.buffers()])
    return decide(
        settings.parallel, weights, _memory(local_size), size, has_deepspeed=find_spec("deepspeed") is not None
    )


def strategy_of(decision: Decision, model: TrainingModel, settings: Settings) -> Strategy:
    """The model, wrapped as decided. Raises MissingExtraError where DeepSpeed is needed and absent."""
    return _makers(decision.offload)[decision.preset](model, settings)


def _makers(offload: bool) -> Mapping[str, Callable[[TrainingModel, Settings], Strategy]]:
    from sottovoce_compiler.finetune.distributed.replicated import Replicated
    from sottovoce_compiler.finetune.distributed.sharded import Sharded
    from sottovoce_compiler.finetune.distributed.zero import Zero

    return {
        "ddp": Replicated,
        "fsdp2": Sharded,
        "zero2": partial(Zero, stage=2, offload=offload),
        "zero3": partial(Zero, stage=3, offload=offload),
    }


def _memory(local_size: int) -> int | None:
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    available = available_bytes()
    return None if available is None else available // local_size
