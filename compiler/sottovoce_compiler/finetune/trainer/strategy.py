"""How the gradients of a step become a new set of parameters: the seam at which a model is wrapped for several devices.

`Plain` is one process with the whole model. Knows floating-point scaling; knows neither schedule nor data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from sottovoce_compiler.finetune.model import Loss, TrainingModel
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer.optimizer import adamw, set_rate
from sottovoce_compiler.finetune.trainer.world import Alone, World


class Strategy(Protocol):
    """Each method is called by every process of a world, in the same order."""

    @property
    def model(self) -> TrainingModel:
        """The model itself, for evaluation."""
        ...

    @property
    def scaled(self) -> bool:
        """Whether a step may be left out because its gradients overflowed, which is no fault."""
        ...

    def forward(self, batch: Any) -> Loss:
        """The loss of one batch; `Loss.total` leads back to the parameters."""
        ...

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Adds the gradients of `loss`, this process's share of the mean over all labelled tokens of the step.
        `last`: no other batch of this step follows, so gradients of all processes can be added up."""
        ...

    def step(self, rate: float, longest: float) -> float:
        """One step of the optimizer at learning rate `rate`, with a gradient no longer than `longest` (0: any), and
        gradients cleared. Returns the norm of the gradient, all parameters together, before it was cut; where that is
        no finite number no parameter was changed."""
        ...

    def parameters(self) -> dict[str, torch.Tensor]:
        """A copy, on the CPU, of what is trained, whole in the main process."""
        ...

    def set_parameters(self, values: Mapping[str, torch.Tensor]) -> None:
        """Puts back what `parameters` gave."""
        ...

    def evaluating(self, world: World) -> World:
        """The processes that share an evaluation: those of `world`, or each alone where a forward pass of one needs all
        the others."""
        ...

    def finish(self) -> None:
        """Makes the model whole in this process, where it was shared out: called once, after the last step."""
        ...

    def state(self) -> dict[str, Any]:
        """What else the next step depends on: tensors, numbers and text in dicts and lists; whole in the main
        process."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` gave."""
        ...


class Plain:
    """One process, the whole model, AdamW. In float16 the loss is multiplied so that small gradients do not vanish
    (Micikevicius et al., arXiv 1710.03740, section 3.2), by a factor that follows what overflows."""

    def __init__(self, model: TrainingModel, learning_rate: float, weight_decay: float, *, scaled: bool = False):
        self._model = model
        self._trained = trained(model)
        self._optimizer = adamw(self._trained.values(), learning_rate, weight_decay)
        device = next(iter(self._trained.values())).device.type
        self._scaler = torch.amp.GradScaler(device, enabled=scaled)

    @property
    def model(self) -> TrainingModel:
        """The model itself."""
        return self._model

    @property
    def scaled(self) -> bool:
        """Whether a step may be left out because its gradients overflowed, which is no fault."""
        return self._scaler.is_enabled()

    def forward(self, batch: Any) -> Loss:
        """The model's loss."""
        return self._model(batch)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Adds the gradients."""
        torch.autograd.backward(self._scaler.scale(loss))

    def step(self, rate: float, longest: float) -> float:
        """AdamW's step, unless the gradient is not finite."""
        self._scaler.unscale_(self._optimizer)
        limit = longest if longest > 0 else float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained.values(), limit))
        set_rate(self._optimizer, rate)
        if self._scaler.is_enabled() or norm < float("inf"):
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def parameters(self) -> dict[str, torch.Tensor]:
        """Copies by name."""
        return {name: one.detach().to("cpu", copy=True) for name, one in self._trained.items()}

    def set_parameters(self, values: Mapping[str, torch.Tensor]) -> None:
        """Copies the values in. Raises ValueError where names or shapes are not those of the model."""
        with torch.no_grad():
            for name, one in self._trained.items():
                if name not in values or values[name].shape != one.shape:
                    raise ValueError(f"no parameter {name} of shape {tuple(one.shape)}")
                one.copy_(values[name])

    def evaluating(self, world: World) -> World:
        """All of them."""
        return world

    def finish(self) -> None:
        """It is whole."""

    def state(self) -> dict[str, Any]:
        """The optimizer's moments and the factor of the loss."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])


def plain(model: TrainingModel, settings: Settings) -> Strategy:
    """The strategy of one process."""
    scaled = settings.dtype == "float16"
    return Plain(model, settings.learning_rate or 0.0, settings.weight_decay, scaled=scaled)


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes that train, and how each wraps its model."""

    world: World = field(default_factory=Alone)
    wrap: Callable[[TrainingModel, Settings], Strategy] = plain


def trained(model: TrainingModel) -> dict[str, torch.nn.Parameter]:
    """The parameters that have gradients, by name. Raises ValueError where there are none."""
    found = {name: one for name, one in model.named_parameters() if one.requires_grad}
    if not found:
        raise ValueError("nothing in this model is trained: it has no adapter")
    return found
