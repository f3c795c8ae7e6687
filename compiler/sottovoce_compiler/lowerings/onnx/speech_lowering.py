"""A speech model as ONNX graphs: what goes into the bundle, and what its manifest and report say of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.engines.onnxruntime import ADAPTED_DECODER, ADAPTED_ENCODER, DECODER, ENCODER
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.lowerings.onnx.graph import OPSET, WEIGHTS_NAME, WeightFile
from sottovoce_compiler.lowerings.onnx.recipe import Recipe, recipe
from sottovoce_compiler.lowerings.onnx.slots import slotted
from sottovoce_compiler.lowerings.onnx.whisper import WhisperLowering
from sottovoce_compiler.report.cost import whisper_cost
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_targets import Target

# MatMulNBits takes 8 bits from 1.22 on; 1.22.0 and 1.32.0 verify bundles of every precision (tests/device).
OLDEST_ENGINE, NEXT_ENGINE = "1.22", "2"


def lower_onnx_speech(
    checkpoint: Checkpoint,
    spec: WhisperSpec,
    precision: str,
    target: Target,
    work: Path,
    progress: Callable[[float], None],
) -> Lowered:
    """See `formats.LowerSpeech`."""
    progress(0)
    return lower_by_recipe(
        checkpoint, spec, recipe(precision, target.arch, frozenset(target.instructions), spec.row_unit), target, work
    )


def lower_by_recipe(checkpoint: Checkpoint, spec: WhisperSpec, chosen: Recipe, target: Target, work: Path) -> Lowered:
    """The graphs and weights as `chosen` says, and what a bundle of them says of itself."""
    files = _graph_files(checkpoint, spec, chosen, work)
    return Lowered(
        files=files,
        engine={
            "name": "onnxruntime",
            "min_version": OLDEST_ENGINE,
            "max_version": NEXT_ENGINE,
            "opset": OPSET,
            "cpu_features": list(target.instructions),
        },
        model=spec.model_json(),
        weights=whisper_cost(spec, chosen, files),
        packages=("onnx", "onnxruntime"),
    )


def _graph_files(checkpoint: Checkpoint, spec: WhisperSpec, chosen: Recipe, work: Path) -> dict[str, bytes | Path]:
    """Two graphs, the same with room for adapters, and the weights of all four, by their names in the bundle."""

    def load(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return checkpoint.tensors.load(name).astype(np.float32, copy=False)

    with WeightFile(work / WEIGHTS_NAME) as weights:
        plain = WhisperLowering(spec, load, chosen, weights)
        adapted = WhisperLowering(spec, load, slotted(chosen), weights)  # equal weights are stored once
        metadata = {"source": checkpoint.name}
        graphs: dict[str, bytes | Path] = {
            ENCODER: plain.encoder(metadata),
            DECODER: plain.decoder(metadata),
            ADAPTED_ENCODER: adapted.encoder(metadata),
            ADAPTED_DECODER: adapted.decoder(metadata),
        }
    return {**graphs, WEIGHTS_NAME: work / WEIGHTS_NAME}
