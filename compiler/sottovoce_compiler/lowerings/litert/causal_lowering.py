"""A language model as a LiteRT graph in a bundle: one file with its weights, the tokenizer beside it."""

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from sottovoce.engines.litert_chat import GRAPH
from sottovoce.engines.onnxruntime_chat import TOKENIZER
from sottovoce_compiler.families.causal import CausalModel, CausalSpec, Float, role_shape
from sottovoce_compiler.lowerings.gguf.model import tensor_name
from sottovoce_compiler.lowerings.litert.causal import CausalLowering
from sottovoce_compiler.lowerings.litert.causal_recipe import CausalRecipe, causal_recipe
from sottovoce_compiler.lowerings.litert.graph import Model, WeightFile
from sottovoce_compiler.lowerings.litert.speech_lowering import ENGINE
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError

_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
_FUSED = {"k": "q", "up": "gate"}  # multiplied together with these, and stored as they are


def lower_litert(
    model: CausalModel,
    checkpoint: Checkpoint,
    precision: str,
    context: int,
    work: Path,
    importance: Mapping[str, Float] | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Lowered:
    """Write `model` in `precision` to files in the folder `work`.

    `importance` maps a tensor's GGUF name to the weight of each of its columns (columns,) float32. Raises InputError
    for rows that no block divides, SourceError without a tokenizer.json, MissingExtraError without ai-edge-litert.
    """
    spec = model.spec
    if checkpoint.tokenizer_file is None:
        raise SourceError(f"{checkpoint.name} has no tokenizer.json, which a bundle for LiteRT carries")
    recipe = causal_recipe(precision, spec, _by_role(spec, importance))
    room = min(context, spec.context)
    path = work / GRAPH
    with WeightFile(path.with_suffix(".weights")) as weights:
        file = Model(weights)
        CausalLowering(_counted(model, progress), recipe, file, room).graph()
        file.write(path, checkpoint.name)
    window = spec.sliding_window if any(spec.slides(i) for i in range(spec.layers)) else None
    return Lowered(
        files={GRAPH: path, TOKENIZER: checkpoint.tokenizer_file},
        # XNNPACK chooses its kernels by the processor it finds: none is needed for the bundle to be right.
        engine={**ENGINE, "cpu_features": []},
        model={
            "context": room,
            "layers": spec.layers,
            "heads": spec.heads,
            "kv_heads": spec.kv_heads,
            "head_width": spec.head_width,
            "vocab_size": spec.vocab_size,
            **({"window": window} if window is not None and window < room else {}),
            **({"pooling": spec.pooling, "width": spec.width} if spec.pooling else {}),
        },
        weights=_weights(spec, recipe, path.stat().st_size, importance is not None),
        packages=("ai-edge-litert", "flatbuffers"),
    )


def _by_role(spec: CausalSpec, importance: Mapping[str, Float] | None) -> Callable[[str, int], Float | None] | None:
    if importance is None:
        return None
    return lambda role, layer: importance.get(tensor_name(spec, role, layer))


def _counted(model: CausalModel, progress: Callable[[float], None]) -> CausalModel:
    """`model` that tells how many of its layers have been begun."""

    def load(role: str, layer: int | None) -> Float:
        if layer is not None:
            progress(layer / model.spec.layers)
        return model.load(role, layer)

    return CausalModel(model.spec, load, model.names)


def _weights(spec: CausalSpec, recipe: CausalRecipe, size: int, calibrated: bool) -> dict[str, Any]:
    """What the report says: how many weights are stored in which way."""
    held: Counter[str] = Counter()
    heads = 1 if spec.tied else 2
    held[recipe.head.describe()] += heads * prod(role_shape(spec, "embed"))
    for layer in range(spec.layers):
        for role in _MATRICES:
            held[recipe.linear(_FUSED.get(role, role), layer).describe()] += prod(role_shape(spec, role))
    total = sum(held.values())
    return {
        "importance_matrix": calibrated,
        "parameters": total,
        "bits_per_weight": round(8 * size / total, 3),
        "share_by_type": {kind: round(count / total, 4) for kind, count in sorted(held.items())},
    }
