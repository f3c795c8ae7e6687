"""The formats that models are lowered to: which precisions each has, what lowers to it, what runs it on this host.

A format's modules are imported when it is used: some bring large libraries, or need an environment of their own.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

from sottovoce.bundle import Bundle
from sottovoce.engines import BundleEngine
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.stand_in import StandIn, standing_in
from sottovoce.errors import InputError
from sottovoce_compiler.families.causal import CausalModel, Float
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.coreml.precision import COREML_PRECISIONS
from sottovoce_compiler.lowerings.gguf.precision import GGUF_PRECISIONS
from sottovoce_compiler.lowerings.litert.precision import LITERT_PRECISIONS
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.lowerings.onnx.recipe import PRECISIONS as ONNX_PRECISIONS
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_targets import PRECISIONS, Target

SPEECH_PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "onnx": ONNX_PRECISIONS,
    "coreml": COREML_PRECISIONS,
    "litert": LITERT_PRECISIONS,
}
CHAT_PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "gguf": (*PRECISIONS, *GGUF_PRECISIONS),
    "onnx": PRECISIONS,
    "coreml": COREML_PRECISIONS,
    "litert": LITERT_PRECISIONS,
}


def first_made(formats: Sequence[str], made: Iterable[str], target: str) -> str:
    """The first of a target's `formats` that is `made` here; InputError where none is."""
    for form in formats:
        if form in made:
            return form
    raise InputError(
        f"target {target} runs {', '.join(formats)}, which this compiler does not make for such a model; "
        f"it makes {', '.join(made)}: choose with --format"
    )


class LowerSpeech(Protocol):
    """Lowers a speech model to one format: writes its files into the folder `work`."""

    def __call__(
        self,
        checkpoint: Checkpoint,
        spec: WhisperSpec,
        precision: str,
        target: Target,
        work: Path,
        progress: Callable[[float], None],
    ) -> Lowered: ...


class LowerChat(Protocol):
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


def speech_lowering(form: str) -> LowerSpeech:
    """What lowers speech to `form`, one of `SPEECH_PRECISIONS`."""
    if form == "coreml":
        from sottovoce_compiler.lowerings.coreml.speech_lowering import lower_coreml_speech

        return lower_coreml_speech
    if form == "litert":
        from sottovoce_compiler.lowerings.litert.speech_lowering import lower_litert_speech

        return lower_litert_speech
    from sottovoce_compiler.lowerings.onnx.speech_lowering import lower_onnx_speech

    return lower_onnx_speech


def chat_lowering(form: str, target: Target) -> LowerChat:
    """What lowers language models to `form`, one of `CHAT_PRECISIONS`, for `target`."""
    if form == "gguf":
        from sottovoce_compiler.lowerings.gguf.lowering import lower_gguf

        return lower_gguf
    if form == "coreml":
        from sottovoce_compiler.lowerings.coreml.causal_lowering import lower_coreml

        return lower_coreml
    if form == "litert":
        from sottovoce_compiler.lowerings.litert.causal_lowering import lower_litert

        return lower_litert
    from sottovoce_compiler.lowerings.onnx.causal_lowering import lower_onnx

    return partial(lower_onnx, arch=target.arch, instructions=target.instructions)


def measurable(form: str) -> AbstractContextManager[None]:
    """Within it, bundles of `form` can be opened on this host: what cannot run here has an evaluator standing in."""
    return standing_in(_STAND_INS[form]) if form in _STAND_INS else nullcontext()


def evaluators() -> AbstractContextManager[None]:
    """Within it, bundles of every format can be opened on this host, with an evaluator where their own engine is for
    another system."""
    return nullcontext() if sys.platform == "darwin" else measurable("coreml")


def stream_note(form: str) -> str | None:
    """Why the stream of a bundle of `form` is not measured on this host; None where it is."""
    if form not in _STAND_INS:
        return None
    return "the stream was not measured: an evaluator stands in for the engine, and takes seconds for each step of one"


def _coreml_speech(bundle: Bundle, threads: int) -> BundleEngine:
    from sottovoce_compiler.lowerings.coreml.stand_in import evaluated_speech

    return evaluated_speech(bundle, threads)


def _coreml_chat(bundle: Bundle, threads: int, context: int | None) -> ChatEngine:
    from sottovoce_compiler.lowerings.coreml.stand_in import evaluated_chat

    return evaluated_chat(bundle, threads, context)


# Of formats whose engine does not run on a workstation.
_STAND_INS: Mapping[str, StandIn] = {"coreml": StandIn("coreml", _coreml_speech, _coreml_chat)}
