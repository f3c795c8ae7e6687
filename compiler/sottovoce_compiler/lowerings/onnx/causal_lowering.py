"""A language model as an ONNX graph in a bundle: one graph, its weights, the tokenizer beside them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sottovoce.engines.bundle_chat import TOKENIZER
from sottovoce.engines.onnxruntime_chat import GRAPH
from sottovoce_compiler.families.causal import CausalModel, Float
from sottovoce_compiler.lowerings.causal_bundle import by_role, counted, shape_fields, stored_weights, tokenizer_of
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.lowerings.onnx.causal import CausalLowering
from sottovoce_compiler.lowerings.onnx.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.onnx.graph import OPSET, WEIGHTS_NAME, WeightFile
from sottovoce_compiler.sources.checkpoint import Checkpoint

_NEXT_ENGINE = "2"


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
    tokenizer = tokenizer_of(checkpoint, "ONNX Runtime")
    recipe = causal_recipe(precision, arch, frozenset(instructions), spec, by_role(spec, importance))
    room = min(context, spec.context)
    with WeightFile(work / WEIGHTS_NAME) as weights:
        lowering = CausalLowering(counted(model, progress), recipe, weights, room)
        graph = lowering.graph({"source": checkpoint.name})
    return Lowered(
        files={GRAPH: graph, WEIGHTS_NAME: work / WEIGHTS_NAME, TOKENIZER: tokenizer},
        engine={
            "name": "onnxruntime",
            "min_version": lowering.min_engine_version,
            "max_version": _NEXT_ENGINE,
            "opset": OPSET,
            "cpu_features": list(instructions),
        },
        model=shape_fields(spec, room),
        weights=stored_weights(spec, recipe.form, (work / WEIGHTS_NAME).stat().st_size, importance is not None),
        packages=("onnx", "onnxruntime"),
    )
