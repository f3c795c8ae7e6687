"""Data parallelism: every process has the whole model, and gradients are added up over all of them before a step.

Of a model with adapters only these are trained, a few megabytes. So there is one all-reduce a step, after its last
batch, of all gradients in one piece: less to wait for than a hook on every parameter, and a parameter that some process
did not use is no special case.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed

from sottovoce_compiler.finetune.model import Loss, TrainingModel
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer.strategy import Strategy, plain, trained
from sottovoce_compiler.finetune.trainer.world import World


class Replicated:
    """A `Strategy`: `Plain` in each process, on the same parameters, with the gradients of all."""

    def __init__(self, model: TrainingModel, settings: Settings) -> None:
        self._trained = list(trained(model).values())
        for parameter in self._trained:
            distributed.broadcast(parameter.detach(), src=0)
        self._inner: Strategy = plain(model, settings)

    @property
    def model(self) -> TrainingModel:
        """The model itself."""
        return self._inner.model

    @property
    def scaled(self) -> bool:
        """Whether a step may be left out because its gradients overflowed, which is no fault."""
        return self._inner.scaled

    def forward(self, batch: Any) -> Loss:
        """The model's loss of this process's batch."""
        return self._inner.forward(batch)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Adds the gradients; after the `last` batch those of all processes."""
        self._inner.backward(loss, last)
        if last:
            self._add_up()

    def step(self, rate: float, longest: float) -> float:
        """The same step in every process."""
        return self._inner.step(rate, longest)

    def parameters(self) -> dict[str, torch.Tensor]:
        """Copies by name, the same in every process."""
        return self._inner.parameters()

    def set_parameters(self, values: Mapping[str, torch.Tensor]) -> None:
        """Copies the values in."""
        self._inner.set_parameters(values)

    def evaluating(self, world: World) -> World:
        """All of them."""
        return world

    def finish(self) -> None:
        """It is whole."""

    def state(self) -> dict[str, Any]:
        """The optimizer's, the same in every process."""
        return self._inner.state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts it back."""
        self._inner.set_state(state)

    @torch.no_grad()
    def _add_up(self) -> None:
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._trained]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        begin = 0
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            parameter.grad = gradient.copy_(flat[begin : begin + gradient.numel()].view_as(gradient))
            begin += gradient.numel()
