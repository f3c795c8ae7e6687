"""FSDP2: each process holds a part of the frozen weights, and a layer is put together when it is its turn.

What is trained is small and stays whole everywhere, with its gradients added up as in `replicated`; so do norms and
biases, which are float32 vectors. Weights that are quantized are buffers, which FSDP2 does not share out: they too are
whole everywhere. Source: torch.distributed.fsdp.fully_shard.
"""

from collections.abc import Iterator
from typing import Any, cast

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from sottovoce_compiler.finetune.distributed.replicated import Replicated
from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer.world import Alone, World


class Sharded(Replicated):
    """`Replicated` over a model whose frozen matrices are shared out, by layers and then what is outside of them."""

    def __init__(self, model: TrainingModel, settings: Settings) -> None:
        module: Any = model
        whole = {parameter for parameter in module.parameters() if parameter.requires_grad or parameter.ndim < 2}
        for block in blocks(module):
            fully_shard(block, ignored_params=whole)
        fully_shard(module, ignored_params=whole)
        super().__init__(model, settings)

    def evaluating(self, world: World) -> World:
        """Each for itself, on all of it: putting a layer together takes every process."""
        return Alone()

    def finish(self) -> None:
        """Puts the model together in every process."""
        for one in cast(nn.Module, self.model).modules():
            if isinstance(one, FSDPModule):
                one.unshard()


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The layers: what a model keeps in lists."""
    for one in module.modules():
        if isinstance(one, nn.ModuleList):
            yield from one
