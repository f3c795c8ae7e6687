"""The compiler, read from top to bottom: resolve -> lower -> pack -> measure -> gate -> stream -> seal.

Every stage has a name, which progress bars and logs use. A stage knows its module; this one knows only their order,
and that nothing is left at the destination unless the gate held, for the text and then for the stream.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.tokens import pack_tokens
from sottovoce_compiler.components import VAD, fetch_component
from sottovoce_compiler.families import family_of
from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.families.whisper_tensors import check_tensors
from sottovoce_compiler.lowerings.onnx.graph import OPSET, WEIGHTS_NAME, WeightFile
from sottovoce_compiler.lowerings.onnx.recipe import Recipe, recipe
from sottovoce_compiler.lowerings.onnx.whisper import WhisperLowering
from sottovoce_compiler.pack import canonical_json, write_bundle
from sottovoce_compiler.report.artifact import bundle_transcriber
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.cost import whisper_cost
from sottovoce_compiler.report.dataset import Dataset
from sottovoce_compiler.report.drift import timestamp_drift
from sottovoce_compiler.report.evaluate import evaluate
from sottovoce_compiler.report.gate import Gate, GateResult
from sottovoce_compiler.report.golden import golden_files
from sottovoce_compiler.report.heads import measured_heads
from sottovoce_compiler.report.source import evaluate_source
from sottovoce_compiler.report.stream_run import compiled_stream
from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_compiler.staging import check_destination, workspace
from sottovoce_targets import Target

STAGES = ("resolve", "lower", "pack", "measure source", "measure artifact", "gate", "measure stream", "seal")
# MatMulNBits takes 8 bits from 1.22 on; 1.22.0 and 1.32.0 verify bundles of every precision (tests/device).
_OLDEST_ENGINE, _NEXT_ENGINE = "1.22", "2"
_OLDEST_RUNTIME = "0.1.0"

Progress = Callable[[str, float], None]  # a stage's name and how much of it is done, 0 to 1


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile, for what, to where, and what it may lose."""

    source: str
    target: Target
    output: Path
    precision: str
    gate: Gate
    dataset: Dataset | None = None  # None: the built-in set
    timings: bool = False  # record how fast the stream is here, which no two compiles measure alike


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bundle in its place, with what it says of itself."""

    bundle: Path
    bytes: int
    report: Mapping[str, Any]
    gate: GateResult


def compile_model(request: Request, progress: Progress = lambda stage, done: None) -> Compiled:
    """Compile one model. Raises SourceError, UnsupportedModelError, GateError, or what packing raises."""
    output = check_destination(request.output)
    progress("resolve", 0)
    checkpoint = resolve(request.source)
    family_of(checkpoint.config, checkpoint.name)
    spec = whisper_spec(checkpoint)
    check_tensors(checkpoint, spec)
    dataset = request.dataset or builtin_set()
    with workspace(output) as work:
        progress("lower", 0)
        if not spec.alignment_heads_known:
            spec = replace(spec, alignment_heads=measured_heads(checkpoint, builtin_set()) or spec.alignment_heads)
        chosen = recipe(request.precision, request.target.arch, frozenset(request.target.instructions), spec.row_unit)
        files = lower(checkpoint, spec, chosen, work)
        fields = manifest_fields(request, checkpoint, spec)
        progress("pack", 0)
        draft = write_bundle(work / "draft.svb", fields, files)
        gate = _measure(request, checkpoint, dataset, draft, progress)
        progress("gate", 0)
        gate.require()
        progress("measure stream", 0)
        card = compiled_stream(draft, dataset)
        gate = gate.with_stream(*card.evaluations, title=card.title)
        gate.require()
        stream = {"stream": card.to_json()}
        if request.timings:
            stream["measured"] = compiled_stream(draft, dataset, charged=True).to_json()
        progress("seal", 0)
        files |= golden_files(draft, builtin_set())
        drift = timestamp_drift(checkpoint, spec.alignment_heads, draft, dataset)
        report = report_of(dataset, gate, drift, whisper_cost(spec, chosen, files)) | stream
        write_bundle(output, fields, {**files, "report.json": canonical_json(report)})
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file()) if output.is_dir() else output.stat().st_size
    return Compiled(output, size, report, gate)


def lower(checkpoint: Checkpoint, spec: WhisperSpec, chosen: Recipe, work: Path) -> dict[str, bytes | Path]:
    """The model files of a bundle, by name: two graphs, their weights, the token table, the voice activity detector."""

    def load(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return checkpoint.tensors.load(name).astype(np.float32, copy=False)

    with WeightFile(work / WEIGHTS_NAME) as weights:
        lowering = WhisperLowering(spec, load, chosen, weights)
        metadata = {"source": checkpoint.name}
        graphs: dict[str, bytes | Path] = {
            "encoder.onnx": lowering.encoder(metadata),
            "decoder.onnx": lowering.decoder(metadata),
        }
    table = [token.encode() if isinstance(token, str) else token for token in checkpoint.vocabulary]
    return {
        **graphs,
        WEIGHTS_NAME: work / WEIGHTS_NAME,
        "tokens.bin": pack_tokens(table),
        "vad.onnx": fetch_component(VAD),
    }


def manifest_fields(request: Request, checkpoint: Checkpoint, spec: WhisperSpec) -> dict[str, Any]:
    """The manifest, but for the list of files."""
    target = request.target.to_json()
    stream = {**request.target.stream, **spec.stream_json()}
    return {
        "requires": {"runtime": _OLDEST_RUNTIME},
        "task": "transcribe",
        "family": "whisper",
        "name": checkpoint.name,
        "precision": request.precision,
        "source": {
            # A folder's path says nothing to others, and may say too much.
            "spec": checkpoint.name if Path(checkpoint.spec).expanduser().exists() else checkpoint.spec,
            "revision": checkpoint.revision,
            "licence": checkpoint.licence,
            "sha256": dict(checkpoint.sha256),
        },
        "target": {key: target[key] for key in ("name", "arch", "os", "cores", "memory_mb", "instructions")},
        "engine": {
            "name": "onnxruntime",
            "min_version": _OLDEST_ENGINE,
            "max_version": _NEXT_ENGINE,
            "opset": OPSET,
            "cpu_features": list(request.target.instructions),
        },
        "audio": spec.audio_json(),
        "model": spec.model_json(),
        "generation": spec.generation_json(),
        # Absent where nobody measured: the runtime has its own.
        **({"stream": stream} if stream else {}),
        "components": {VAD.name: {"source": VAD.requirement, "licence": VAD.licence}},
    }


def _measure(request: Request, checkpoint: Checkpoint, dataset: Dataset, draft: Path, progress: Progress) -> GateResult:
    count = max(1, len(dataset.clips))
    progress("measure source", 0)
    source = evaluate_source(checkpoint, dataset, lambda done: progress("measure source", done / count))
    progress("measure artifact", 0)
    artifact = evaluate(bundle_transcriber(draft), dataset, lambda done: progress("measure artifact", done / count))
    return request.gate.check(source, artifact)


def report_of(dataset: Dataset, gate: GateResult, drift: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, Any]:
    """What the bundle says of itself. No times and no machine: those differ from run to run, and `bench` measures them
    on the device that matters; two compiles of one source give the same bytes. The stream is added likewise, compute
    not charged.
    """
    packages = ("onnx", "onnxruntime", "torch", "transformers", "numpy")
    return {
        "data": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "clips": len(dataset.clips),
            "seconds": round(dataset.seconds, 3),
        },
        "quality": {"source": gate.source.to_json(), "artifact": gate.artifact.to_json()},
        "timestamp_drift": dict(drift),
        "gate": gate.to_json(),
        "cost": dict(cost),
        "versions": {name: version(name) for name in packages},
    }
