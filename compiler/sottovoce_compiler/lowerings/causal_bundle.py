"""What every lowering of a language model puts into a bundle beside its own graph: the tokenizer, the sizes the engine
needs, and how many weights are stored in which way.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from sottovoce_compiler.families.causal import CausalModel, CausalSpec, Float, role_shape
from sottovoce_compiler.lowerings.gguf.model import tensor_name
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
_FUSED = {"k": "q", "up": "gate"}  # multiplied together with these, and stored as they are


def tokenizer_of(checkpoint: Checkpoint, engine: str) -> Path:
    """The source's tokenizer.json. Raises SourceError where it has none."""
    if checkpoint.tokenizer_file is None:
        raise SourceError(f"{checkpoint.name} has no tokenizer.json, which a bundle for {engine} carries")
    return checkpoint.tokenizer_file


def shape_fields(spec: CausalSpec, room: int) -> dict[str, Any]:
    """The manifest's `model`, as `sottovoce.engines.shapes.ChatShape` reads it; `room` is in positions."""
    return {
        "context": room,
        "layers": spec.layers,
        "kv_heads": spec.kv_heads,
        "head_width": spec.head_width,
        "vocab_size": spec.vocab_size,
        **({"pooling": spec.pooling} if spec.pooling else {}),
    }


def counted(model: CausalModel, progress: Callable[[float], None]) -> CausalModel:
    """`model` that tells how many of its layers have been begun."""

    def load(role: str, layer: int | None) -> Float:
        if layer is not None:
            progress(layer / model.spec.layers)
        return model.load(role, layer)

    return CausalModel(model.spec, load, model.names)


def by_role(spec: CausalSpec, importance: Mapping[str, Float] | None) -> Callable[[str, int], Float | None] | None:
    """The weight of each column (columns,) of a matrix by its role and layer, from an importance matrix that has them
    by GGUF names."""
    if importance is None:
        return None
    return lambda role, layer: importance.get(tensor_name(spec, role, layer))


def stored_weights(
    spec: CausalSpec, form: Callable[[str, int | None], str], size: int, calibrated: bool
) -> dict[str, Any]:
    """What the report says: how many weights are stored in which way, and bits a weight of `size` bytes.

    `form` names how the matrix of a role and layer is stored; of the layers it is asked for those that are multiplied
    on their own, or first of several.
    """
    held: Counter[str] = Counter()
    held[form("embed", None)] += (1 if spec.tied else 2) * prod(role_shape(spec, "embed"))
    for layer in range(spec.layers):
        for role in MATRICES:
            held[form(_FUSED.get(role, role), layer)] += prod(role_shape(spec, role))
    total = held.total()
    return {
        "importance_matrix": calibrated,
        "parameters": total,
        "bits_per_weight": round(8 * size / total, 3),
        "share_by_type": {kind: round(count / total, 4) for kind, count in sorted(held.items())},
    }
