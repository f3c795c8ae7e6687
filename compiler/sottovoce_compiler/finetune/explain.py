"""What a run would do, before it does it: on which matrices, by which operations, in how many steps, how long and in
how much memory. Time and memory are measured on one micro-batch of the run's own data; nothing is trained.

Knows what was prepared. Decides nothing.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sottovoce.cli.progress import clock
from sottovoce.memory import available_bytes
from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.preparation import Prepared, load_model
from sottovoce_compiler.finetune.profiles import profile_of
from sottovoce_compiler.finetune.trainer.loop import planned_steps
from sottovoce_compiler.finetune.trainer.memory import peak_bytes
from sottovoce_compiler.finetune.trainer.strategy import trained
from sottovoce_compiler.finetune.trainer.world import Alone
from sottovoce_compiler.report.table import Table
from sottovoce_kernels.attention.dispatch import Facts, choose_attention, installed_flash
from sottovoce_kernels.backend import has_triton

OPTIMIZER_BYTES = 8  # a parameter: two moments in float32, which the first step makes
_PROBES = 2  # of one micro-batch; the first one warms caches up


@dataclass(frozen=True, slots=True)
class Probe:
    """One micro-batch, forward and backward: `tokens` in `seconds`, `memory` bytes at the peak (the whole process)."""

    tokens: int
    seconds: float
    memory: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be done. `steps` are those that are left, `seconds` what they take without evaluations."""

    facts: Mapping[str, str]
    steps: int
    seconds: float
    memory: int | None  # bytes at the peak, optimizer included
    trainable: int
    values: Mapping[str, Any]

    def table(self) -> Table:
        """For a person."""
        return Table("what would be done", ("", ""), tuple(self.facts.items()))

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        figures = {"steps": self.steps, "seconds": round(self.seconds, 1), "memory": self.memory}
        return {**figures, "trainable": self.trainable, **self.values, "facts": dict(self.facts)}


def explain_run(prepared: Prepared, done: int = 0) -> Explanation:
    """Reads the weights and tries one micro-batch. `done` steps are behind a run that is resumed."""
    model = load_model(prepared)
    world, settings = Alone(), prepared.settings
    probe = try_batch(prepared, model)
    trainable = sum(one.numel() for one in trained(model).values())
    steps = planned_steps(prepared.task, settings, world) - done
    seconds = steps * settings.accumulation * probe.seconds
    memory = None if probe.memory is None else probe.memory + OPTIMIZER_BYTES * trainable
    speed = f"{probe.tokens / probe.seconds:,.0f} tokens/s here, now"
    facts = {
        "model": f"{prepared.checkpoint.name}, {prepared.family}",
        "on": f"{settings.device}, computed in {settings.dtype}{_quantized(prepared)}, adapters in float32",
        "adapter": f"{settings.method} of rank {settings.rank}, alpha {settings.alpha:g}, on "
        f"{', '.join(prepared.targets)}",
        "trained": f"{trainable:,} parameters, beside {len(model.adapted())} frozen matrices",
        "packing": prepared.packing.reason,
        **{one.name: one.why for one in profile_of(prepared.family).operations},
        **_attention(prepared, model),
        "steps": f"{steps} of {settings.accumulation} micro-batches of up to {settings.batch_tokens} tokens",
        "learning rate": f"{settings.learning_rate:g}, {settings.schedule}, {settings.warmup:.0%} warm-up",
        "measure": f"{prepared.task.measure}, every {_times(settings.eval_every)}",
        "time": f"about {clock(seconds)}, evaluations left out ({speed})",
        "memory": _memory(memory),
    }
    return Explanation(facts, steps, seconds, memory, trainable, {"settings": settings.to_json()})


def try_batch(prepared: Prepared, model: TrainingModel) -> Probe:
    """Forward and backward of the first micro-batch; gradients are dropped."""
    batch = next(iter(prepared.task.epoch(0, Alone()))).batches[0]
    parameters = trained(model)
    device = next(iter(parameters.values())).device
    seconds = 0.0
    model.train()
    for _ in range(_PROBES):
        began = time.monotonic()
        torch.autograd.backward(model(batch.to(device)).total)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.monotonic() - began
    for one in parameters.values():
        one.grad = None
    return Probe(prepared.task.seen(batch), seconds, peak_bytes(device))


def _attention(prepared: Prepared, model: Any) -> dict[str, str]:
    """Which implementation runs, by the facts that it would find."""
    speech, device = prepared.family == "whisper", prepared.settings.device
    spec = model.spec
    facts = Facts(
        width=spec.encoder_head_width if speech else spec.head_width,
        dtype=prepared.settings.dtype,
        key_bias=speech,  # of silence, which is heard compressed
        capability=torch.cuda.get_device_capability() if device == "cuda" else None,
        triton=has_triton(),
        flash_attn=installed_flash(),
    )
    choice = choose_attention(facts)
    return {"attention by": f"{choice.name}: {choice.reason}"}


def _times(steps: int | None) -> str:
    return "epoch" if steps is None else f"{steps} steps"


def _quantized(prepared: Prepared) -> str:
    kind = prepared.settings.quantize
    return "" if kind == "none" else f" over weights in {kind}"


def _memory(bytes_: int | None) -> str:
    if bytes_ is None:
        return "not known on this system"
    free = available_bytes()
    return f"about {bytes_ / 1e9:.1f} GB at the peak" + ("" if free is None else f"; {free / 1e9:.1f} GB are free now")
