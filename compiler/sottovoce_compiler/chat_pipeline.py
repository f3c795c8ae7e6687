"""Compiling a language model, read from top to bottom: lower -> pack -> measure -> gate -> seal.

A stage knows its module; this one knows only their order, and that nothing is left at the destination unless the gate
held.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from sottovoce.errors import InputError
from sottovoce_compiler.families import language_model
from sottovoce_compiler.families.causal import CausalModel, Float
from sottovoce_compiler.lowerings.gguf.precision import GGUF_PRECISIONS
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.pack import canonical_json, write_bundle
from sottovoce_compiler.report.calibration import UNSEARCHED, calibrate
from sottovoce_compiler.report.chat_card import ChatCard
from sottovoce_compiler.report.chat_gate import ChatVerdict, chat_gate_from
from sottovoce_compiler.report.chat_golden import chat_golden_files
from sottovoce_compiler.report.chat_measure import measure_chat
from sottovoce_compiler.report.texts import TextSet, builtin_text, read_texts
from sottovoce_compiler.request import Compiled, Progress, Request, common_fields
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_compiler.staging import workspace
from sottovoce_compiler.tokens import ChatTokens, chat_tokens
from sottovoce_targets import PRECISIONS, Target

TEMPLATE = "chat_template.jinja"


class Lower(Protocol):
    """Lowers a language model to one format: writes its files into the folder `work`."""

    def __call__(
        self,
        model: CausalModel,
        checkpoint: Checkpoint,
        precision: str,
        context: int,
        work: Path,
        importance: Mapping[str, Float] | None,
        progress: Callable[[float], None],
    ) -> Lowered: ...


def compile_chat(request: Request, checkpoint: Checkpoint, output: Path, progress: Progress) -> Compiled:
    """Compile one resolved model to `output`. Raises UnsupportedModelError, GateError, or what packing raises."""
    if request.timings:
        raise InputError("timings are recorded for speech only; `sottovoce bench` measures a language model's bundle")
    model = language_model(checkpoint)
    form, precision = chat_format(request)
    gate = chat_gate_from({**request.target.chat.gate, **request.limits})
    texts = read_texts(request.eval) if request.eval else builtin_text()
    tokens = chat_tokens(checkpoint, model.spec)
    with workspace(output) as work:
        lowered, calibration = lower(
            request, form, precision, model, checkpoint, work, lambda done: progress("lower", done)
        )
        fields = manifest_fields(request, checkpoint, precision, tokens, lowered, model.spec.family)
        files = dict(lowered.files)
        if checkpoint.chat_template is not None:
            files[TEMPLATE] = checkpoint.chat_template.encode()
        progress("pack", 0)
        draft = write_bundle(work / "draft.svb", fields, files)
        progress("measure artifact", 0)
        card = measure_chat(checkpoint, draft, texts, lambda done: progress("measure artifact", done))
        verdict = gate.check(card)
        progress("gate", 0)
        verdict.require()
        progress("seal", 0)
        files |= chat_golden_files(draft)
        report = report_of(texts, card, verdict, lowered) | {"calibration": calibration}
        write_bundle(output, fields, {**files, "report.json": canonical_json(report)})
    return Compiled.at(output, report, verdict)


def chat_format(request: Request) -> tuple[str, str]:
    """Format and precision: what was asked for, or the target's. InputError where the one does not have the other."""
    chat = request.target.chat
    form, precision = request.format or chat.format, request.precision or chat.precision
    known = {"gguf": (*PRECISIONS, *GGUF_PRECISIONS), "onnx": PRECISIONS}
    if form not in known:
        raise InputError(f"format {form!r} is not one of {', '.join(known)}")
    if precision not in known[form]:
        raise InputError(f"precision {precision!r} is not one of the format {form}, which has {', '.join(known[form])}")
    return form, precision


def lower(
    request: Request,
    form: str,
    precision: str,
    model: CausalModel,
    checkpoint: Checkpoint,
    work: Path,
    progress: Callable[[float], None],
) -> tuple[Lowered, Mapping[str, Any] | None]:
    """The lowered model, and what told which of its weights matter most, where the precision asks."""
    progress(0)
    calibration = None
    if request.calibrate and precision not in UNSEARCHED:
        calibration = calibrate(checkpoint, model, request.calibration)
    importance = None if calibration is None else calibration.importance
    context = request.target.chat.context
    lowered = _lowering(form, request.target)(model, checkpoint, precision, context, work, importance, progress)
    return lowered, None if calibration is None else dict(calibration.data)


def _lowering(form: str, target: Target) -> Lower:
    if form == "gguf":
        from sottovoce_compiler.lowerings.gguf.lowering import lower_gguf

        return lower_gguf
    from sottovoce_compiler.lowerings.onnx.causal_lowering import lower_onnx

    return partial(lower_onnx, arch=target.arch, instructions=target.instructions)


def manifest_fields(
    request: Request,
    checkpoint: Checkpoint,
    precision: str,
    tokens: ChatTokens,
    lowered: Lowered,
    family: str,
) -> dict[str, Any]:
    """The manifest, but for the list of files."""
    return {
        **common_fields(request, checkpoint, precision),
        "task": "chat",
        "family": family,
        "engine": dict(lowered.engine),
        "model": dict(lowered.model),
        "generation": tokens.to_json(),
    }


def report_of(texts: TextSet, card: ChatCard, verdict: ChatVerdict, lowered: Lowered) -> dict[str, Any]:
    """What the bundle says of itself. No times and no machine, as for speech: `bench` measures those where it matters,
    and two compiles of one source give the same bytes."""
    packages = ("torch", "transformers", "tokenizers", "numpy", *lowered.packages)
    return {
        "data": {"name": texts.name, "sha256": texts.sha256, "passages": len(texts.passages)},
        "quality": card.to_json(),
        "gate": verdict.to_json(),
        "weights": dict(lowered.weights),
        "notes": list(lowered.notes),
        "measured_with": card.engine,
        "versions": {name: version(name) for name in packages},
    }
