"""A LoRA adapter on its base: which of the base's matrices each pair changes, and the base with it added.

Knows that an adapter's modules are named after the model it was trained in, whose prefixes differ from the stored ones.
An adapter that names anything but a matrix that the compiled model multiplies by is refused, not applied in part.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sottovoce_compiler.families import SPEECH, family_of, language_model
from sottovoce_compiler.sources.checkpoint import Array, Checkpoint, SourceError, Tensors
from sottovoce_compiler.sources.peft import MERGE_IT, LoraAdapter, LoraPair

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")  # of a layer, by their roles
# What a model's class puts before the names of its parts; the longer ones first.
_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")
_HEADS = ("lm_head", "proj_out")


@dataclass(frozen=True)
class AdaptedTensors:
    """`Tensors` with an adapter added as they are read, in float32. The others are as stored."""

    base: Tensors
    pairs: Mapping[str, LoraPair]

    def names(self) -> list[str]:
        """Every tensor's name, sorted."""
        return self.base.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading its data."""
        return self.base.shape(name)

    def load(self, name: str) -> Array:
        """A fresh array; float32 where the adapter changes it."""
        weight = self.base.load(name)
        if (pair := self.pairs.get(name)) is None:
            return weight
        return pair.added_to(weight.astype(np.float32))


@dataclass(frozen=True)
class Adapted:
    """What a checkpoint with an adapter was made of."""

    base: Checkpoint
    adapter: LoraAdapter


def with_adapter(checkpoint: Checkpoint, adapter: LoraAdapter) -> Checkpoint:
    """`checkpoint` with `adapter` in its weights, its name, its licence and its digests. Raises SourceError where it
    was made for another model."""
    licences = dict.fromkeys(licence for licence in (checkpoint.licence, adapter.licence) if licence)
    return replace(
        checkpoint,
        name=f"{checkpoint.name}+{adapter.name}",
        tensors=AdaptedTensors(checkpoint.tensors, placed(adapter, checkpoint)),
        licence=" AND ".join(licences) or None,
        sha256={**checkpoint.sha256, **{f"adapter/{name}": digest for name, digest in adapter.sha256.items()}},
    )


def placed(adapter: LoraAdapter, checkpoint: Checkpoint) -> dict[str, LoraPair]:
    """The checkpoint's tensor -> the pair that changes it. Raises SourceError naming a module that is not one of the
    base's matrices, or a shape that differs."""
    matrices = {bare_name(name): name for name in _matrices(checkpoint)}
    found: dict[str, LoraPair] = {}
    for pair in adapter.pairs:
        name = matrices.get(bare_name(f"{pair.module}.weight"))
        if name is None or name in found:
            raise SourceError(_misplaced(adapter, pair, checkpoint, twice=name is not None))
        if (shape := checkpoint.tensors.shape(name)) != pair.shape:
            raise SourceError(
                f"{adapter.folder} changes {pair.module} of {pair.shape}; in {checkpoint.name} it is {shape}: "
                "it was made for another model"
            )
        if pair.has_base and not _same(pair, checkpoint, name):
            raise SourceError(f"{adapter.folder} replaces {pair.module} of {checkpoint.name} too; {MERGE_IT}")
        found[name] = pair
    return found


def note_on_base(adapter: LoraAdapter, checkpoint: Checkpoint) -> str | None:
    """What to tell where the adapter's config names another base; the same model has many names, so no error."""
    here = {checkpoint.spec.lower(), checkpoint.name.lower()}
    if adapter.base is None or adapter.base.lower() in here or adapter.base.lower().rpartition("/")[2] in here:
        return None
    return f"{adapter.name} says that it was trained on {adapter.base!r}; it is taken for {checkpoint.name}"


def _matrices(checkpoint: Checkpoint) -> Iterator[str]:
    if family_of(checkpoint.config, checkpoint.name) in SPEECH:
        from sottovoce_compiler.families.whisper import whisper_spec
        from sottovoce_compiler.families.whisper_tensors import expected_tensors

        for name, shape in expected_tensors(whisper_spec(checkpoint)):
            if len(shape) == 2 and ".layers." in name:
                yield name
        return
    model = language_model(checkpoint)
    for layer in range(model.spec.layers):
        yield from dict.fromkeys(model.names(role, layer) for role in MATRICES)
    if not model.spec.tied:
        yield model.names("head", None)


def _same(pair: LoraPair, checkpoint: Checkpoint, name: str) -> bool:
    """Whether the weight that was saved with a pair is the base's, but for rounding to bfloat16."""
    theirs, ours = pair.load_base(), checkpoint.tensors.load(name)
    return theirs.shape == ours.shape and np.allclose(theirs, ours.astype(np.float32), rtol=2**-8, atol=1e-30)


def bare_name(name: str) -> str:
    """A module's or a tensor's name without what the class of its model puts before it."""
    return name.removeprefix(next((prefix for prefix in _PREFIXES if name.startswith(prefix)), ""))


def _misplaced(adapter: LoraAdapter, pair: LoraPair, checkpoint: Checkpoint, *, twice: bool) -> str:
    if twice:
        return f"{adapter.folder} changes {pair.module} under two names; save it anew"
    if pair.module.rpartition(".")[2] in _HEADS:
        why = f"which in {checkpoint.name} is the embedding too; that is not supported: train without it"
    else:
        why = f"which is no matrix of {checkpoint.name}: it was made for another model"
    return f"{adapter.folder} changes {pair.module}, {why}"
