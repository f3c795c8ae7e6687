"""Models as they are trained: frozen weights with adapters composed on top, over the operations of
`sottovoce_kernels`. What the trainer may ask of one is `TrainingModel`."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

if TYPE_CHECKING:
    from sottovoce_compiler.finetune.model.adapted import AdaptedLinear


class Loss(NamedTuple):
    """`total` is the sum over `tokens` labelled tokens, a float32 scalar: who divides knows what is added up.

    A tuple: what puts a model together for its backward pass (FSDP2, DeepSpeed) finds tensors in those.
    """

    total: torch.Tensor
    tokens: int


class TrainingModel(Protocol):
    """An `nn.Module`; batches are those of the model's task."""

    checkpointing: bool  # layers are computed again in the backward pass instead of being kept

    def __call__(self, batch: Any) -> Loss: ...

    def adapted(self) -> "Mapping[str, AdaptedLinear]":
        """Every adapted matrix by the module's name in the source, as PEFT names it."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]: ...

    def train(self, mode: bool = True) -> Any: ...
