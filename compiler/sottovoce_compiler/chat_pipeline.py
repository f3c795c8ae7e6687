"""Compiling a language model, read from top to bottom: lower -> pack -> measure -> gate -> (compare formats) -> seal.

A stage knows its module; this one knows only their order, and that nothing is left at the destination unless the gate
held.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sottovoce.bench import BenchResult, measure
from sottovoce.errors import InputError
from sottovoce_compiler.adapter import Adapted
from sottovoce_compiler.families import UnsupportedModelError, language_model
from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.lowerings.formats import CHAT_PRECISIONS, chat_lowering, first_made, measurable
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.memory.fit import require_fit
from sottovoce_compiler.memory.neighbour import read_neighbour
from sottovoce_compiler.memory.planning import plan_chat
from sottovoce_compiler.pack import canonical_json, write_bundle
from sottovoce_compiler.report.adaptation import adapter_section, text_adaptation
from sottovoce_compiler.report.answers import measure_answers
from sottovoce_compiler.report.calibration import UNSEARCHED, calibrate
from sottovoce_compiler.report.chat_card import ChatCard
from sottovoce_compiler.report.chat_gate import ChatVerdict, chat_gate_from
from sottovoce_compiler.report.chat_golden import chat_golden_files
from sottovoce_compiler.report.chat_measure import measure_chat, measure_distribution
from sottovoce_compiler.report.formats import FormatComparison, FormatFigures
from sottovoce_compiler.report.texts import TextSet, builtin_text, read_texts
from sottovoce_compiler.request import Compiled, Progress, Request, common_fields
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError
from sottovoce_compiler.staging import workspace
from sottovoce_compiler.tokens import ChatTokens, chat_tokens

TEMPLATE = "chat_template.jinja"
# What ONNX has of as many bits, or the next more, where a precision is GGUF's alone.
OTHER_PRECISION: Mapping[str, str] = {
    "bf16": "fp16",
    "q8_0": "int8",
    "q6_k": "int8",
    "q5_k_m": "int8",
    "q4_k_m": "int4",
    "q4_0": "int4",
    "iq4_nl": "int4",
    "pal6": "q6_k",
    "pal4": "int4",
}


def compile_chat(
    request: Request, checkpoint: Checkpoint, output: Path, progress: Progress, adapted: Adapted | None = None
) -> Compiled:
    """Compile one resolved model to `output`; `adapted` says what it is made of where it has an adapter.

    Raises UnsupportedModelError, GateError, SourceError for an adapter that changes nothing, or what packing raises.
    """
    if request.timings and not request.compare_formats:
        raise InputError(
            "timings of a language model are recorded with --compare-formats; `sottovoce bench` measures one bundle"
        )
    model = language_model(checkpoint)
    form, precision = chat_format(request)
    gate = chat_gate_from({**request.target.chat.gate, **request.limits})
    texts = read_texts(request.eval) if request.eval else builtin_text()
    memory = predicted_memory(request, form, precision, model, checkpoint)
    with workspace(output) as work, measurable(form):
        draft = _draft(request, form, precision, model, checkpoint, work, progress)
        progress("measure artifact", 0)
        card = measure_chat(checkpoint, draft.path, texts, lambda done: progress("measure artifact", done))
        verdict = gate.check(card)
        progress("gate", 0)
        verdict.require()
        adaptation = None if adapted is None else text_adaptation(adapted, checkpoint, texts, card.scores)
        answers = None
        if request.answers is not None:
            answers = measure_answers(
                request.answers, checkpoint, draft.path, None if adapted is None else adapted.base
            )
        formats = _compared(request, draft, card, model, checkpoint, texts, work / "other", progress)
        progress("seal", 0)
        files = {**draft.files, **chat_golden_files(draft.path)}
        report = report_of(texts, card, verdict, draft.lowered) | {"calibration": draft.calibration} | memory
        report |= adapter_section(adaptation)
        report |= {} if answers is None else {"answers": answers.to_json()}
        report |= {} if formats is None else {"formats": formats.to_json()}
        write_bundle(output, draft.fields, {**files, "report.json": canonical_json(report)})
    tables = [part.table() for part in (adaptation, answers, formats) if part is not None]
    return Compiled.at(output, report, verdict, tuple(tables))


@dataclass(frozen=True, slots=True)
class _Draft:
    """A bundle without its report: where it lies, what is in it, and what made it so."""

    path: Path
    form: str
    precision: str
    fields: Mapping[str, Any]
    files: Mapping[str, bytes | Path]
    lowered: Lowered
    calibration: Mapping[str, Any] | None


def _draft(
    request: Request,
    form: str,
    precision: str,
    model: CausalModel,
    checkpoint: Checkpoint,
    work: Path,
    progress: Progress,
) -> _Draft:
    """The model lowered and packed in the folder `work`."""
    lowered, calibration = lower(
        request, form, precision, model, checkpoint, work, lambda done: progress("lower", done)
    )
    tokens = chat_tokens(checkpoint, model.spec)
    fields = manifest_fields(request, checkpoint, precision, tokens, lowered, model.spec.family)
    files = dict(lowered.files)
    if checkpoint.chat_template is not None:
        files[TEMPLATE] = checkpoint.chat_template.encode()
    progress("pack", 0)
    path = write_bundle(work / "draft.svb", fields, files)
    return _Draft(path, form, precision, fields, files, lowered, calibration)


def _compared(
    request: Request,
    draft: _Draft,
    card: ChatCard,
    model: CausalModel,
    checkpoint: Checkpoint,
    texts: TextSet,
    work: Path,
    progress: Progress,
) -> FormatComparison | None:
    """The draft beside the same model in the other format, made in the new folder `work` and left there; None where
    nobody asked."""
    if not request.compare_formats:
        return None

    def told(share: float, from_: float = 0.0) -> Callable[[float], None]:
        return lambda done: progress("compare formats", from_ + share * done)

    told(0)(0)
    form, precision = ("onnx" if draft.form == "gguf" else "gguf"), OTHER_PRECISION.get(draft.precision)
    mine = FormatFigures(
        draft.form, draft.precision, card.engine, draft.path.stat().st_size, card.scores, _speed(request, draft)
    )
    work.mkdir()
    try:
        lowering = told(0.4)
        other = _draft(
            request,
            form,
            precision or draft.precision,
            model,
            checkpoint,
            work,
            lambda stage, done: lowering(done) if stage == "lower" else None,
        )
    except (UnsupportedModelError, SourceError, InputError) as error:
        return FormatComparison(mine, None, str(error).splitlines()[0])
    scores, engine = measure_distribution(checkpoint, other.path, texts, told(0.6, 0.4))
    size = other.path.stat().st_size
    return FormatComparison(mine, FormatFigures(form, other.precision, engine, size, scores, _speed(request, other)))


def _speed(request: Request, draft: _Draft) -> BenchResult | None:
    return measure(draft.path) if request.timings else None


def chat_format(request: Request) -> tuple[str, str]:
    """Format and precision: what was asked for, or the target's. InputError where the one does not have the other."""
    chat, known = request.target.chat, CHAT_PRECISIONS
    form = request.format or first_made(chat.formats, known, request.target.name)
    precision = request.precision or chat.precision
    if form not in known:
        raise InputError(f"format {form!r} is not one of {', '.join(known)}")
    if precision not in known[form]:
        raise InputError(f"precision {precision!r} is not one of the format {form}, which has {', '.join(known[form])}")
    return form, precision


def predicted_memory(
    request: Request, form: str, precision: str, model: CausalModel, checkpoint: Checkpoint
) -> dict[str, Any]:
    """What the report says of the memory that the bundle will take; DoesNotFitError where its target has less."""
    plan_of = partial(plan_chat, request.target, form, model=model, checkpoint=checkpoint)
    beside = None if request.beside is None else read_neighbour(request.beside)
    return require_fit(checkpoint.name, request.target, precision, plan_of, CHAT_PRECISIONS[form], beside)


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
    lowered = chat_lowering(form, request.target)(model, checkpoint, precision, context, work, importance, progress)
    return lowered, None if calibration is None else dict(calibration.data)


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
