"""A speech model as LiteRT graphs: what goes into the bundle, and what its manifest and report say of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.engines.litert import ENCODER
from sottovoce.engines.litert_decoder import DECODER
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.litert.graph import Model, WeightFile
from sottovoce_compiler.lowerings.litert.recipe import Recipe, recipe
from sottovoce_compiler.lowerings.litert.whisper import WhisperLowering
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.lowerings.onnx.whisper import MARGIN_FRAMES, TAIL_STRIDE
from sottovoce_compiler.report.cost import counted
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_targets import Target

ENGINE: Mapping[str, Any] = {"name": "litert", "min_version": "2.1", "max_version": "3"}


def lower_litert_speech(
    checkpoint: Checkpoint,
    spec: WhisperSpec,
    precision: str,
    target: Target,
    work: Path,
    progress: Callable[[float], None],
) -> Lowered:
    """See `formats.LowerSpeech`. Raises MissingExtraError without ai-edge-litert, InputError where the precision does
    not suit the model."""
    chosen = recipe(precision, spec.row_unit)
    files: dict[str, bytes | Path] = {}
    for number, name in enumerate((ENCODER, DECODER)):
        progress(number / 2)
        files[name] = _graph_file(checkpoint, spec, chosen, work / name)
    return Lowered(
        files=files,
        # XNNPACK chooses its kernels by the processor it finds: none is needed for the bundle to be right.
        engine={**ENGINE, "cpu_features": []},
        model={**spec.model_json(), "margin_frames": MARGIN_FRAMES, "tail_stride": TAIL_STRIDE},
        weights={
            **counted(spec, files),
            "precision": {part: getattr(chosen, part).describe() for part in ("encoder", "decoder", "head")},
        },
        packages=("ai-edge-litert", "flatbuffers"),
    )


def _graph_file(checkpoint: Checkpoint, spec: WhisperSpec, chosen: Recipe, path: Path) -> Path:
    def load(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return checkpoint.tensors.load(name).astype(np.float32, copy=False)

    with WeightFile(path.with_suffix(".weights")) as weights:
        model = Model(weights)
        lowering = WhisperLowering(spec, load, chosen, model)
        lowering.encoder() if path.name == ENCODER else lowering.decoder()
        model.write(path, checkpoint.name)
    return path
