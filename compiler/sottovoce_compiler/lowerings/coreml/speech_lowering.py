"""A speech model as Core ML packages: what goes into the bundle, and what its manifest and report say of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.families.whisper_tensors import expected_tensors
from sottovoce_compiler.lowerings.coreml.conversion import convert
from sottovoce_compiler.lowerings.coreml.job import Float, Job
from sottovoce_compiler.lowerings.coreml.precision import SYSTEMS, deployment
from sottovoce_compiler.lowerings.coreml.stand_in import ENGINE
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.lowerings.onnx.recipe import block_size
from sottovoce_compiler.lowerings.parts import by_part
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_targets import Target

OLDEST_TOOLS, NEXT_TOOLS = "9.0", "10"  # coremltools
SPECIFICATIONS = {"iOS17": 8, "iOS18": 9}  # versions of Core ML's file format


def lower_coreml_speech(
    checkpoint: Checkpoint,
    spec: WhisperSpec,
    precision: str,
    target: Target,
    work: Path,
    progress: Callable[[float], None],
) -> Lowered:
    """See `formats.LowerSpeech`. Raises ConversionError or MissingExtraError as `convert` does."""
    parts = by_part(precision)
    system = deployment(*parts.values())
    block = block_size(spec.row_unit, 32) if "int4" in parts.values() else 0
    job = Job(spec, parts, system, about(checkpoint), block)

    def load(name: str) -> Float:
        return checkpoint.tensors.load(name).astype(np.float32, copy=False)

    packages = convert(job, (name for name, _ in expected_tensors(spec)), load, work, progress)
    files = package_files(packages)
    return Lowered(
        files=files,
        engine=engine(system),
        # The model gives the mean over the heads that follow the audio, as WhisperKit's apps expect.
        model={**spec.model_json(), "alignment_heads": 1},
        weights=_weights(spec, parts, files),
        notes=notes(system),
        packages=("coremltools",),
    )


def engine(system: str) -> Mapping[str, Any]:
    """The manifest's `engine` for packages that need `system`."""
    return {
        "name": ENGINE,
        "min_version": OLDEST_TOOLS,
        "max_version": NEXT_TOOLS,
        "opset": SPECIFICATIONS[system],
        "cpu_features": [],
    }


def notes(system: str) -> tuple[str, ...]:
    """What a user should know of any such bundle."""
    return (
        f"the packages need {SYSTEMS[system]}, or newer",
        "measured by evaluating the packages' programs on the host, in float16 with float32 within an operation; Core "
        "ML's own kernels were not run",
    )


def about(checkpoint: Checkpoint) -> Mapping[str, str]:
    """The packages' metadata."""
    return {
        "description": f"{checkpoint.name}, compiled by Sottovoce",
        "licence": checkpoint.licence or "",
        "co.huggingface.exporters.name": checkpoint.name,  # what swift-transformers calls it by
    }


def package_files(packages: Path) -> dict[str, bytes | Path]:
    """Every file of the packages in a folder by its name in the bundle."""
    found = sorted(file for file in packages.rglob("*") if file.is_file())
    return {file.relative_to(packages).as_posix(): file for file in found}


def _weights(spec: WhisperSpec, parts: Mapping[str, str], files: Mapping[str, bytes | Path]) -> dict[str, Any]:
    per_frame = 2 * spec.decoder_layers * spec.width
    return {
        "file_bytes": {name: file.stat().st_size for name, file in sorted(files.items()) if isinstance(file, Path)},
        "precision": dict(parts),
        "self_cache_bytes": per_frame * spec.n_text_ctx * 2,
    }
