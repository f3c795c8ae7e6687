"""A language model as a GGUF file in a bundle: which type each tensor gets, its bytes, and what was done to whom."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from sottovoce_compiler.families.causal import CausalModel, Float, role_shape
from sottovoce_compiler.lowerings.gguf.model import gguf_tensors, graph_of
from sottovoce_compiler.lowerings.gguf.precision import mix_of
from sottovoce_compiler.lowerings.gguf.quants import quantize
from sottovoce_compiler.lowerings.gguf.recipe import MIXES, Choice, fallback_share, plan
from sottovoce_compiler.lowerings.gguf.writer import write_gguf
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.sources.checkpoint import Checkpoint

FILE = "model.gguf"


def lower_gguf(
    model: CausalModel,
    checkpoint: Checkpoint,
    precision: str,
    context: int,
    work: Path,
    importance: Mapping[str, Float] | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Lowered:
    """Write `model` in `precision` (ours or llama.cpp's) to a file in the folder `work`.

    `importance` maps a tensor's GGUF name to the weight of each of its columns (columns,) float32. Raises InputError
    for an unknown precision, UnsupportedModelError for what llama.cpp would compute or tokenize otherwise.
    """
    spec, mix = model.spec, mix_of(precision)
    graph = graph_of(spec, checkpoint.name)
    choices = tensor_choices(model, graph.architecture, precision, importance=importance is not None)
    chosen = {choice.name: choice for choice in choices}
    total, done = sum(prod(choice.shape) for choice in choices), 0
    threads = os.cpu_count() or 1

    def store(name: str, array: Float) -> tuple[NDArray[Any], GGMLQuantizationType]:
        nonlocal done
        kind = chosen[name].chosen if name in chosen else GGMLQuantizationType.F32
        rows = np.atleast_2d(array)
        data = quantize(rows, kind, None if importance is None else importance.get(name), threads=threads)
        done += array.size
        progress(min(1.0, done / total))
        return data, kind

    path = work / FILE
    notes = write_gguf(model, checkpoint, path, store, int(MIXES[mix][1]))
    return Lowered(
        files={FILE: path},
        engine={"name": "llama.cpp", "min_version": "0", "max_version": None, "cpu_features": []},
        model={
            "context": min(context, graph.context),
            "layers": spec.layers,
            "kv_heads": spec.kv_heads,
            "head_width": spec.head_width,
            "vocab_size": spec.vocab_size,
        },
        weights=_weights(mix, choices, path, importance is not None),
        notes=notes,
        packages=("gguf",),
    )


def tensor_choices(model: CausalModel, architecture: str, precision: str, *, importance: bool) -> tuple[Choice, ...]:
    """The format that every tensor of `model` gets in `precision`; no weight is read. Raises InputError for an unknown
    precision."""
    spec = model.spec
    return plan(
        mix_of(precision),
        architecture,
        _shapes(model),
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        importance=importance,
    )


def _shapes(model: CausalModel) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the file by its name, with nothing read: weights that are all one zero."""

    def empty(role: str, layer: int | None) -> Float:
        return np.broadcast_to(np.float32(0), role_shape(model.spec, role))

    return {name: array.shape for name, array in gguf_tensors(CausalModel(model.spec, empty))}


def _weights(mix: str, choices: tuple[Choice, ...], path: Path, calibrated: bool) -> dict[str, Any]:
    """What the report says: the mix, how many weights each type has, and what fell back and why."""
    values = sum(prod(choice.shape) for choice in choices)
    held: Counter[str] = Counter()
    for choice in choices:
        held[choice.chosen.name] += prod(choice.shape)
    fell = [choice for choice in choices if choice.chosen != choice.wanted]
    moves = Counter((choice.wanted.name, choice.chosen.name, choice.reason) for choice in fell)
    return {
        "mix": mix,
        "importance_matrix": calibrated,
        "parameters": values,
        "bits_per_weight": round(8 * sum(_bytes(choice) for choice in choices) / values, 3),
        "share_by_type": {kind: round(count / values, 4) for kind, count in sorted(held.items())},
        "fell_back": {
            "share": round(fallback_share(choices), 4),
            "tensors": [
                {"wanted": wanted, "stored": stored, "count": count, "because": reason}
                for (wanted, stored, reason), count in sorted(moves.items())
            ],
        },
    }


def _bytes(choice: Choice) -> int:
    block, size = GGML_QUANT_SIZES[choice.chosen]
    return prod(choice.shape) // block * size
