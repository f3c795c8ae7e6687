"""A language model as an ONNX graph in a bundle: one graph, its weights, the tokenizer beside them."""

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from sottovoce_compiler.families.causal import CausalModel, CausalSpec, Float, role_shape
from sottovoce_compiler.lowerings.gguf.model import tensor_name
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.lowerings.onnx.causal import CausalLowering
from sottovoce_compiler.lowerings.onnx.causal_recipe import CausalRecipe, causal_recipe
from sottovoce_compiler.lowerings.onnx.graph import OPSET, WEIGHTS_NAME, WeightFile
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"
_NEXT_ENGINE = "2"
_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
_FUSED = {"k": "q", "up": "gate"}  # multiplied together with these, and stored as they are


def lower_onnx(
    model: CausalModel,
    checkpoint: Checkpoint,
    precision: str,
    context: int,
    work: Path,
    importance: Mapping[str, Float] | None = None,
    progress: Callable[[float], None] = lambda done: None,
    *,
    arch: str,
    instructions: tuple[str, ...],
) -> Lowered:
    """Write `model` in `precision` for a CPU of `arch` with `instructions` to files in the folder `work`.

    `importance` maps a tensor's GGUF name to the weight of each of its columns (columns,) float32. Raises InputError
    for rows that no block divides, UnsupportedModelError for what onnxruntime's operators cannot compute, SourceError
    without a tokenizer.json.
    """
    spec = model.spec
    if checkpoint.tokenizer_file is None:
        raise SourceError(f"{checkpoint.name} has no tokenizer.json, which a bundle for ONNX Runtime carries")
    recipe = causal_recipe(precision, arch, frozenset(instructions), spec, _by_role(spec, importance))
    room = min(context, spec.context)
    with WeightFile(work / WEIGHTS_NAME) as weights:
        lowering = CausalLowering(_counted(model, progress), recipe, weights, room)
        graph = lowering.graph({"source": checkpoint.name})
    return Lowered(
        files={GRAPH: graph, WEIGHTS_NAME: work / WEIGHTS_NAME, TOKENIZER: checkpoint.tokenizer_file},
        engine={
            "name": "onnxruntime",
            "min_version": lowering.min_engine_version,
            "max_version": _NEXT_ENGINE,
            "opset": OPSET,
            "cpu_features": list(instructions),
        },
        model={
            "context": room,
            "layers": spec.layers,
            "kv_heads": spec.kv_heads,
            "head_width": spec.head_width,
            "vocab_size": spec.vocab_size,
            **({"pooling": spec.pooling} if spec.pooling else {}),
        },
        weights=_weights(spec, recipe, (work / WEIGHTS_NAME).stat().st_size, importance is not None),
        packages=("onnx", "onnxruntime"),
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
    held[_stored(recipe.head)] += heads * prod(role_shape(spec, "embed"))
    for layer in range(spec.layers):
        for role in _MATRICES:
            held[_stored(recipe.linear(_FUSED.get(role, role), layer))] += prod(role_shape(spec, role))
    total = sum(held.values())
    return {
        "importance_matrix": calibrated,
        "parameters": total,
        "bits_per_weight": round(8 * size / total, 3),
        "share_by_type": {kind: round(count / total, 4) for kind, count in sorted(held.items())},
    }


def _stored(linear: Any) -> str:
    """A linear's name for the report: its bits and block."""
    bits, block = getattr(linear, "bits", None), getattr(linear, "block", None)
    if block is not None:
        return f"{bits or 4} bits in blocks of {block}"
    if hasattr(linear, "half"):
        return "fp16" if linear.half else "fp32"
    return "8 bits by row"
