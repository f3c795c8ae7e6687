"""A language model as a LiteRT graph in a bundle: one file with its weights, the tokenizer beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sottovoce.engines.bundle_chat import TOKENIZER
from sottovoce.engines.litert_chat import GRAPH
from sottovoce_compiler.families.causal import CausalModel, Float
from sottovoce_compiler.lowerings.causal_bundle import by_role, counted, shape_fields, stored_weights, tokenizer_of
from sottovoce_compiler.lowerings.litert.causal import CausalLowering
from sottovoce_compiler.lowerings.litert.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.litert.graph import Model, WeightFile
from sottovoce_compiler.lowerings.litert.speech_lowering import ENGINE
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.sources.checkpoint import Checkpoint


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
    tokenizer = tokenizer_of(checkpoint, "LiteRT")
    recipe = causal_recipe(precision, spec, by_role(spec, importance))
    room = min(context, spec.context)
    path = work / GRAPH
    with WeightFile(path.with_suffix(".weights")) as weights:
        file = Model(weights)
        CausalLowering(counted(model, progress), recipe, file, room).graph()
        file.write(path, checkpoint.name)
    window = spec.sliding_window if any(spec.slides(i) for i in range(spec.layers)) else None
    return Lowered(
        files={GRAPH: path, TOKENIZER: tokenizer},
        # XNNPACK chooses its kernels by the processor it finds: none is needed for the bundle to be right.
        engine={**ENGINE, "cpu_features": []},
        model={
            **shape_fields(spec, room),
            "heads": spec.heads,
            **({"window": window} if window is not None and window < room else {}),
            **({"width": spec.width} if spec.pooling else {}),
        },
        weights=stored_weights(spec, recipe.form, path.stat().st_size, importance is not None),
        packages=("ai-edge-litert", "flatbuffers"),
    )
