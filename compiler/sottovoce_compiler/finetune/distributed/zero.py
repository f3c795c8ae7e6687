"""DeepSpeed's ZeRO (Rajbhandari et al., arXiv 1910.02054): stage 2 shares out optimizer and gradients, stage 3 the
weights too.

Adapters stay float32 and frozen weights what they are: the engine computes as the model does. Parameters and moments
are read and written by DeepSpeed's own accessors, so that a checkpoint is the same file as that of one process.
"""

import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from sottovoce.errors import MissingExtraError
from sottovoce_compiler.finetune.distributed.sharded import blocks
from sottovoce_compiler.finetune.model import Loss, TrainingModel
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer.optimizer import adamw, set_rate
from sottovoce_compiler.finetune.trainer.strategy import trained
from sottovoce_compiler.finetune.trainer.world import Alone, World

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's


def deepspeed() -> Any:
    """The library. Raises MissingExtraError where it is not installed."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed as found
    except ImportError as error:
        raise MissingExtraError(
            "ZeRO needs DeepSpeed: pip install 'sottovoce-compiler[deepspeed]', or choose --parallel ddp or fsdp2"
        ) from error
    return found


def config(stage: int, width: int, settings: Settings, *, offload: bool = False) -> dict[str, Any]:
    """DeepSpeed's settings for a model whose layers are `width` wide: buckets of a layer's matrix, parameters of up to
    ten rows kept whole in stage 3; `offload` keeps optimizer, and in stage 3 the weights, in main memory."""
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": max(width * width, 1 << 16),
        "contiguous_gradients": True,
        "overlap_comm": torch.cuda.is_available(),
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": int(0.9 * width * width),
            "stage3_param_persistence_threshold": 10 * width,
        }
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": 1,  # a batch is a packed one; its mean is taken by the trainer
        "gradient_accumulation_steps": 1,  # likewise: the trainer says which batch is a step's last
        "gradient_clipping": settings.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 30,
        "wall_clock_breakdown": False,
    }


class Zero:
    """A `Strategy` over one DeepSpeed engine."""

    def __init__(self, model: TrainingModel, settings: Settings, stage: int, *, offload: bool = False) -> None:
        library = deepspeed()
        self._model, self._trained, self._stage = model, trained(model), stage
        width = max(parameter.shape[-1] for parameter in self._trained.values())
        optimizer = adamw(self._trained.values(), settings.learning_rate or 0.0, settings.weight_decay)
        self._engine, self._optimizer, *_ = library.initialize(
            model=model, optimizer=optimizer, config=config(stage, width, settings, offload=offload)
        )
        if stage == 3:  # a layer reads its parts' weights itself: they are put together with it
            for block in blocks(cast(nn.Module, model)):
                for parameter in block.parameters():
                    library.zero.register_external_parameter(block, parameter)
        self._size = torch.distributed.get_world_size()

    @property
    def model(self) -> TrainingModel:
        """The model itself."""
        return self._model

    @property
    def scaled(self) -> bool:
        """Never: adapters are float32."""
        return False

    def forward(self, batch: Any) -> Loss:
        """The model's loss of this process's batch."""
        loss: Loss = self._engine(batch)
        return loss

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Adds the gradients. DeepSpeed takes the mean over processes; what is wanted is the sum."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self._size)

    def step(self, rate: float, longest: float) -> float:
        """DeepSpeed's step, with the longest gradient of its own settings, unless a gradient is not finite."""
        norm = self._norm()
        set_rate(self._optimizer, rate)
        if norm < float("inf"):
            self._engine.step()
        else:
            self._engine.zero_grad()
            self._optimizer.zero_grad()
        return norm

    def parameters(self) -> dict[str, torch.Tensor]:
        """Whole copies by name, in every process."""
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: _copy(safe_get_full_fp32_param(one)) for name, one in self._trained.items()}

    def set_parameters(self, values: Mapping[str, torch.Tensor]) -> None:
        """Copies the values in. Raises ValueError where names or shapes are not those of the model."""
        from deepspeed.utils import safe_set_full_fp32_param

        for name, now in self.parameters().items():
            if name not in values or values[name].shape != now.shape:
                raise ValueError(f"no parameter {name} of shape {tuple(now.shape)}")
            safe_set_full_fp32_param(self._trained[name], values[name].to(self._device))
        if self._stage == 3:  # that was the optimizer's copy; the model's follows it only at the next step
            trained = self._trained
            with deepspeed().zero.GatheredParameters(list(trained.values()), modifier_rank=0), torch.no_grad():
                for name, parameter in trained.items():
                    parameter.copy_(values[name])

    def evaluating(self, world: World) -> World:
        """All of them; each for itself in stage 3, where putting a layer together takes every process."""
        return Alone() if self._stage == 3 else world

    def finish(self) -> None:
        """Puts the model together in every process."""
        if self._stage == 3:
            self._engine.empty_partition_cache()  # or it takes for whole what its last forward pass has put together
            self._engine.destroy()  # no hook shares out again what is put together now
            deepspeed().zero.GatheredParameters(list(cast(nn.Module, self._model).parameters())).__enter__()

    def state(self) -> dict[str, Any]:
        """AdamW's moments by parameter, and the number of its steps."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found: dict[str, Any] = {"steps": self._steps()}
        if found["steps"]:
            for moment in MOMENTS:
                found[moment] = {
                    name: _copy(safe_get_full_optimizer_state(one, moment)) for name, one in self._trained.items()
                }
        return found

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if not state["steps"]:
            return
        self._begin()
        for moment in MOMENTS:
            for name, one in self._trained.items():
                safe_set_full_optimizer_state(one, state[moment][name].to(self._device), moment)
        for values in self._inner().state.values():
            values["step"] = torch.as_tensor(float(state["steps"])).to(values["step"])

    @property
    def _device(self) -> torch.device:
        return next(iter(self._trained.values())).device

    def _inner(self) -> Any:
        return self._optimizer.optimizer

    def _steps(self) -> int:
        found = [int(values["step"]) for values in self._inner().state.values() if "step" in values]
        return max(found, default=0)

    def _begin(self) -> None:
        """Makes the moments that a new optimizer does not have yet: in stage 2 by a step at rate 0."""
        if self._stage == 3:
            for part in self._optimizer.fp32_partitioned_groups_flat:
                moments = {moment: torch.zeros_like(part) for moment in MOMENTS}
                self._inner().state[part] = {"step": torch.zeros((), device=part.device), **moments}
            return
        set_rate(self._optimizer, 0.0)
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.backward(torch.stack([one.sum() * 0 for one in self._trained.values()]).sum())
        self._engine.step()

    def _norm(self) -> float:
        from deepspeed.utils import safe_get_full_grad

        gradients = [safe_get_full_grad(one) for one in self._trained.values()]
        norms = [one.norm().float() for one in gradients if one is not None]
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def _copy(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None  # every trained parameter is the optimizer's
    return value.detach().to("cpu", copy=True)
