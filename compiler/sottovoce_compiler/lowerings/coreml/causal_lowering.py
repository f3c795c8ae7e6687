"""A language model as a Core ML package in a bundle: one package of two functions, the tokenizer beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sottovoce.engines.bundle_chat import TOKENIZER
from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.families.causal import CausalModel, CausalSpec, Float
from sottovoce_compiler.lowerings.causal_bundle import MATRICES, shape_fields, stored_weights, tokenizer_of
from sottovoce_compiler.lowerings.coreml.causal_recipe import causal_parts, key
from sottovoce_compiler.lowerings.coreml.conversion import convert
from sottovoce_compiler.lowerings.coreml.job import Job
from sottovoce_compiler.lowerings.coreml.precision import deployment
from sottovoce_compiler.lowerings.coreml.speech_lowering import about, engine, notes, package_files
from sottovoce_compiler.lowerings.gguf.model import tensor_name
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.sources.checkpoint import Checkpoint


def lower_coreml(
    model: CausalModel,
    checkpoint: Checkpoint,
    precision: str,
    context: int,
    work: Path,
    importance: Mapping[str, Float] | None,
    progress: Callable[[float], None],
) -> Lowered:
    """See `formats.LowerChat`. `importance` maps a tensor's GGUF name to the weight of each of its columns.

    Raises InputError for rows that no block divides, UnsupportedModelError for a model made for embeddings,
    SourceError without a tokenizer.json, ConversionError or MissingExtraError as `convert` does.
    """
    spec = model.spec
    tokenizer = tokenizer_of(checkpoint, "Core ML")
    if spec.pooling is not None:
        raise UnsupportedModelError(f"{checkpoint.name} is made for embeddings: compile to ONNX")
    room, system = min(context, spec.context), deployment(precision, stateful=True)
    weighed = _by_key(spec, importance)
    parts = causal_parts(precision, spec, weighed)
    job = Job(spec, {"layers": precision}, system, about(checkpoint), context=room, importance=weighed)

    def load(name: str) -> Float:
        layer, _, role = name.rpartition(".")
        return model.load(role, int(layer) if layer else None)

    files = package_files(convert(job, _keys(spec), load, work, progress))
    size = sum(file.stat().st_size for file in files.values() if isinstance(file, Path))

    def form(role: str, layer: int | None) -> str:
        return parts.of(role, layer).describe()

    return Lowered(
        files={**files, TOKENIZER: tokenizer},
        engine=engine(system),
        model=shape_fields(spec, room),
        weights=stored_weights(spec, form, size, importance is not None),
        notes=notes(system),
        packages=("coremltools",),
    )


def _keys(spec: CausalSpec) -> list[str]:
    ends = [key(role, None) for role in ("embed", "final_norm", *(() if spec.tied else ("head",)))]
    return ends + [key(role, layer) for layer in range(spec.layers) for role in spec.layer_roles()]


def _by_key(spec: CausalSpec, importance: Mapping[str, Float] | None) -> dict[str, Float] | None:
    if importance is None:
        return None
    found = {}
    for layer in range(spec.layers):
        for role in MATRICES:
            if (columns := importance.get(tensor_name(spec, role, layer))) is not None:
                found[key(role, layer)] = columns
    return found
