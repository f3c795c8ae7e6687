"""A language model as a Core ML package in a bundle: one package of two functions, the tokenizer beside it."""

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from sottovoce.engines.onnxruntime_chat import TOKENIZER
from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.families.causal import CausalModel, CausalSpec, Float, role_shape
from sottovoce_compiler.lowerings.coreml.causal_recipe import CausalParts, causal_parts, key
from sottovoce_compiler.lowerings.coreml.conversion import convert
from sottovoce_compiler.lowerings.coreml.job import Job
from sottovoce_compiler.lowerings.coreml.precision import deployment
from sottovoce_compiler.lowerings.coreml.speech_lowering import about, engine, notes, package_files
from sottovoce_compiler.lowerings.gguf.model import tensor_name
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError

_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


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
    if checkpoint.tokenizer_file is None:
        raise SourceError(f"{checkpoint.name} has no tokenizer.json, which a bundle for Core ML carries")
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
    return Lowered(
        files={**files, TOKENIZER: checkpoint.tokenizer_file},
        engine=engine(system),
        model={
            "context": room,
            "layers": spec.layers,
            "kv_heads": spec.kv_heads,
            "head_width": spec.head_width,
            "vocab_size": spec.vocab_size,
        },
        weights=_weights(spec, parts, files, importance is not None),
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
        for role in _MATRICES:
            if (columns := importance.get(tensor_name(spec, role, layer))) is not None:
                found[key(role, layer)] = columns
    return found


def _weights(
    spec: CausalSpec, parts: CausalParts, files: Mapping[str, bytes | Path], calibrated: bool
) -> dict[str, Any]:
    """What the report says: how many weights are stored in which way."""
    held: Counter[str] = Counter()
    held[parts.of("embed", None).describe()] += (1 if spec.tied else 2) * prod(role_shape(spec, "embed"))
    for layer in range(spec.layers):
        for role in _MATRICES:
            held[parts.of(role, layer).describe()] += prod(role_shape(spec, role))
    total = held.total()
    size = sum(file.stat().st_size for file in files.values() if isinstance(file, Path))
    return {
        "importance_matrix": calibrated,
        "parameters": total,
        "bits_per_weight": round(8 * size / total, 3),
        "share_by_type": {kind: round(count / total, 4) for kind, count in sorted(held.items())},
    }
