"""Compiling a speech model, read from top to bottom: lower -> pack -> measure -> gate -> stream -> seal.

A stage knows its module; this one knows only their order, and that nothing is left at the destination unless the gate
held, for the text and then for the stream.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sottovoce.errors import InputError
from sottovoce.loading import TOKENS, VAD
from sottovoce.tokens import pack_tokens
from sottovoce_compiler.adapter import Adapted
from sottovoce_compiler.components import SILERO_VAD, fetch_component
from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.families.whisper_tensors import check_tensors
from sottovoce_compiler.lowerings.formats import SPEECH_PRECISIONS, first_made, measurable, speech_lowering, stream_note
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.lowerings.parts import by_part, in_words
from sottovoce_compiler.memory.fit import require_fit
from sottovoce_compiler.memory.neighbour import read_neighbour
from sottovoce_compiler.memory.planning import plan_speech
from sottovoce_compiler.pack import canonical_json, write_bundle
from sottovoce_compiler.report.adaptation import adapter_section, speech_adaptation
from sottovoce_compiler.report.artifact import bundle_transcriber
from sottovoce_compiler.report.builtin import builtin_set
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
    gate_limits = gate_from({**request.target.gate, **request.limits})
    memory = predicted_memory(request, checkpoint, spec)
    with workspace(output) as work, measurable(speech_format(request)[0]):
        progress("lower", 0)
        if not spec.alignment_heads_known:
            spec = replace(spec, alignment_heads=measured_heads(checkpoint, builtin_set()) or spec.alignment_heads)
        lowered = lower(request, checkpoint, spec, work, lambda done: progress("lower", done))
        files, fields = lowered.files, manifest_fields(request, checkpoint, spec, lowered)
        progress("pack", 0)
        draft = write_bundle(work / "draft.svb", fields, files)
        gate = gate_limits.check(*_measure(checkpoint, dataset, draft, progress))
        progress("gate", 0)
        gate.require()
        adaptation = None
        if adapted is not None:
            adaptation = speech_adaptation(adapted, checkpoint, dataset, gate.source, gate.artifact)
        gate, stream = _measure_stream(request, draft, dataset, gate, progress)
        progress("seal", 0)
        golden = golden_files(draft, builtin_set())
        drift = timestamp_drift(checkpoint, spec.alignment_heads, draft, dataset)
        report = report_of(dataset, gate, drift, lowered) | stream | memory
        report |= adapter_section(adaptation)
        write_bundle(output, fields, {**files, **golden, "report.json": canonical_json(report)})
    return Compiled.at(output, report, gate, () if adaptation is None else (adaptation.table(),))


def _measure_stream(
    request: Request, draft: Path, dataset: Dataset, gate: GateResult, progress: Progress
) -> tuple[GateResult, dict[str, Any]]:
    """The gate with the stream's limits, which held, and what the report says of the stream: null where it cannot be
    measured here."""
    if stream_note(speech_format(request)[0]) is not None:
        return gate, {"stream": None}
    progress("measure stream", 0)
    card = compiled_stream(draft, dataset)
    gate = gate.with_stream(*card.evaluations, title=card.title)
    gate.require()
    stream: dict[str, Any] = {"stream": card.to_json()}
    if request.timings:
        stream["measured"] = compiled_stream(draft, dataset, charged=True).to_json()
    return gate, stream


def _check_request(request: Request) -> None:
    """InputError for what only language models are asked, before anything slow is done."""
    if request.compare_formats:
        raise InputError("formats are compared for language models; speech is lowered to the target's alone")
    if request.calibration is not None:
        raise InputError("calibration text is for language models; speech is rounded without any")
    if request.answers is not None:
        raise InputError("questions to answer are for language models; give recordings with --eval")
    speech_format(request)
    gate_from({**request.target.gate, **request.limits})


def speech_format(request: Request) -> tuple[str, str]:
    """Format and precision: what was asked for, or the target's. InputError where the one does not have the other."""
    target = request.target
    form = request.format or first_made(target.formats, SPEECH_PRECISIONS, target.name)
    if form not in SPEECH_PRECISIONS:
        raise InputError(f"format {form!r} is for language models; speech has {', '.join(SPEECH_PRECISIONS)}")
    parts = by_part(request.precision or target.precision)
    known = SPEECH_PRECISIONS[form]
    for precision in parts.values():
        if precision not in known:
            only = "for language models" if form == "onnx" else f"not one of the format {form}"
            raise InputError(f"precision {precision!r} is {only}; speech has {', '.join(known)}")
    return form, in_words(parts)


def predicted_memory(request: Request, checkpoint: Checkpoint, spec: WhisperSpec) -> dict[str, Any]:
    """What the report says of the memory that the bundle will take; DoesNotFitError where its target has less."""
    form, precision = speech_format(request)
    plan_of = partial(plan_speech, request.target, form, spec=spec)
    beside = None if request.beside is None else read_neighbour(request.beside)
    return require_fit(checkpoint.name, request.target, precision, plan_of, SPEECH_PRECISIONS[form], beside)


def lower(
    request: Request, checkpoint: Checkpoint, spec: WhisperSpec, work: Path, progress: Callable[[float], None]
) -> Lowered:
    """The model in the format asked for; its files are all of the bundle's that are for the model."""
    form, precision = speech_format(request)
    lowered = speech_lowering(form)(checkpoint, spec, precision, request.target, work, progress)
    notes = (*lowered.notes, *filter(None, [stream_note(form)]))
    return replace(lowered, files={**lowered.files, **common_files(checkpoint)}, notes=notes)


def common_files(checkpoint: Checkpoint) -> dict[str, bytes | Path]:
    """What a speech bundle has in every format: the token table and the voice activity detector."""
    table = [token.encode() if isinstance(token, str) else token for token in checkpoint.vocabulary]
    return {TOKENS: pack_tokens(table), VAD: fetch_component(SILERO_VAD)}


def manifest_fields(request: Request, checkpoint: Checkpoint, spec: WhisperSpec, lowered: Lowered) -> dict[str, Any]:
    """The manifest, but for the list of files."""
    stream = {**request.target.stream, **spec.stream_json()}
    return {
        **common_fields(request, checkpoint, speech_format(request)[1]),
        "task": "transcribe",
        "family": "whisper",
        "engine": dict(lowered.engine),
        "audio": spec.audio_json(),
        "model": dict(lowered.model),
        "generation": spec.generation_json(),
        # Absent where nobody measured: the runtime has its own.
        **({"stream": stream} if stream else {}),
        "components": {SILERO_VAD.name: {"source": SILERO_VAD.requirement, "licence": SILERO_VAD.licence}},
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


def report_of(dataset: Dataset, gate: GateResult, drift: Mapping[str, Any], lowered: Lowered) -> dict[str, Any]:
    """What the bundle says of itself. No times and no machine: those differ from run to run, and `bench` measures them
    on the device that matters; two compiles of one source give the same bytes. The stream is added likewise, compute
    not charged.
    """
    packages = (*lowered.packages, "torch", "transformers", "numpy")
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
        "cost": dict(lowered.weights),
        **({"notes": list(lowered.notes)} if lowered.notes else {}),
        "versions": {name: version(name) for name in packages},
    }
