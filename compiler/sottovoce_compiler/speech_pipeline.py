"""Compiling a speech model, read from top to bottom: lower -> pack -> measure -> gate -> stream -> seal.

A stage knows its module; this one knows only their order, and that nothing is left at the destination unless the gate
held, for the text and then for the stream.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.engines.onnxruntime import ADAPTED_DECODER, ADAPTED_ENCODER, DECODER, ENCODER
from sottovoce.errors import InputError
from sottovoce.tokens import pack_tokens
from sottovoce_compiler.adapter import Adapted
from sottovoce_compiler.components import VAD, fetch_component
from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.families.whisper_tensors import check_tensors
from sottovoce_compiler.lowerings.onnx.graph import OPSET, WEIGHTS_NAME, WeightFile
from sottovoce_compiler.lowerings.onnx.recipe import PRECISIONS, Recipe, recipe
from sottovoce_compiler.lowerings.onnx.slots import slotted
from sottovoce_compiler.lowerings.onnx.whisper import WhisperLowering
from sottovoce_compiler.pack import canonical_json, write_bundle
from sottovoce_compiler.report.adaptation import adapter_section, speech_adaptation
from sottovoce_compiler.report.artifact import bundle_transcriber
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.cost import whisper_cost
from sottovoce_compiler.report.dataset import Dataset, read_manifest
from sottovoce_compiler.report.drift import timestamp_drift
from sottovoce_compiler.report.evaluate import Evaluation, evaluate
from sottovoce_compiler.report.gate import GateResult, gate_from
from sottovoce_compiler.report.golden import golden_files
from sottovoce_compiler.report.heads import measured_heads
from sottovoce_compiler.report.source import evaluate_source
from sottovoce_compiler.report.stream_run import compiled_stream
from sottovoce_compiler.request import Compiled, Progress, Request, common_fields
from sottovoce_compiler.sources import Checkpoint
from sottovoce_compiler.staging import workspace

# MatMulNBits takes 8 bits from 1.22 on; 1.22.0 and 1.32.0 verify bundles of every precision (tests/device).
_OLDEST_ENGINE, _NEXT_ENGINE = "1.22", "2"


def compile_speech(
    request: Request, checkpoint: Checkpoint, output: Path, progress: Progress, adapted: Adapted | None = None
) -> Compiled:
    """Compile one resolved model to `output`; `adapted` says what it is made of where it has an adapter.

    Raises UnsupportedModelError, GateError, SourceError for an adapter that changes nothing, or what packing raises.
    """
    _check_request(request)
    spec = whisper_spec(checkpoint)
    check_tensors(checkpoint, spec)
    dataset = read_manifest(request.eval) if request.eval else builtin_set()
    precision, gate_limits = speech_precision(request), gate_from({**request.target.gate, **request.limits})
    with workspace(output) as work:
        progress("lower", 0)
        if not spec.alignment_heads_known:
            spec = replace(spec, alignment_heads=measured_heads(checkpoint, builtin_set()) or spec.alignment_heads)
        chosen = recipe(precision, request.target.arch, frozenset(request.target.instructions), spec.row_unit)
        files = lower(checkpoint, spec, chosen, work)
        fields = manifest_fields(request, checkpoint, spec)
        progress("pack", 0)
        draft = write_bundle(work / "draft.svb", fields, files)
        gate = gate_limits.check(*_measure(checkpoint, dataset, draft, progress))
        progress("gate", 0)
        gate.require()
        adaptation = None
        if adapted is not None:
            adaptation = speech_adaptation(adapted, checkpoint, dataset, gate.source, gate.artifact)
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
        report |= adapter_section(adaptation)
        write_bundle(output, fields, {**files, "report.json": canonical_json(report)})
    return Compiled.at(output, report, gate, () if adaptation is None else (adaptation.table(),))


def _check_request(request: Request) -> None:
    """InputError for what only language models are asked, before anything slow is done."""
    if request.format is not None:
        raise InputError(f"format {request.format!r} is for language models; speech is lowered to the target's alone")
    if request.compare_formats:
        raise InputError("formats are compared for language models; speech is lowered to the target's alone")
    if request.calibration is not None:
        raise InputError("calibration text is for language models; speech is rounded without any")
    if request.answers is not None:
        raise InputError("questions to answer are for language models; give recordings with --eval")
    speech_precision(request)
    gate_from({**request.target.gate, **request.limits})


def speech_precision(request: Request) -> str:
    """What was asked for, or the target's; InputError for one that only language models have."""
    precision = request.precision or request.target.precision
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is for language models; speech has {', '.join(PRECISIONS)}")
    return precision


def lower(checkpoint: Checkpoint, spec: WhisperSpec, chosen: Recipe, work: Path) -> dict[str, bytes | Path]:
    """The model files of a bundle, by name: two graphs, the same with room for adapters, the weights of all four, the
    token table, the voice activity detector."""

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
    table = [token.encode() if isinstance(token, str) else token for token in checkpoint.vocabulary]
    return {
        **graphs,
        WEIGHTS_NAME: work / WEIGHTS_NAME,
        "tokens.bin": pack_tokens(table),
        "vad.onnx": fetch_component(VAD),
    }


def manifest_fields(request: Request, checkpoint: Checkpoint, spec: WhisperSpec) -> dict[str, Any]:
    """The manifest, but for the list of files."""
    stream = {**request.target.stream, **spec.stream_json()}
    return {
        **common_fields(request, checkpoint, speech_precision(request)),
        "task": "transcribe",
        "family": "whisper",
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


def _measure(
    checkpoint: Checkpoint, dataset: Dataset, draft: Path, progress: Progress
) -> tuple[Evaluation, Evaluation]:
    """The source's evaluation and the artifact's."""
    count = max(1, len(dataset.clips))
    progress("measure source", 0)
    source = evaluate_source(checkpoint, dataset, lambda done: progress("measure source", done / count))
    progress("measure artifact", 0)
    artifact = evaluate(bundle_transcriber(draft), dataset, lambda done: progress("measure artifact", done / count))
    return source, artifact


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
