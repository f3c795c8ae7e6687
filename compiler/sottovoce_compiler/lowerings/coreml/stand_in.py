"""Opens bundles made for Core ML where there is none: the evaluator computes what their packages compute."""

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.engines import BundleEngine
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.coreml_chat import FUNCTIONS, PACKAGE, STEP, ChatModels, CoreMLChat
from sottovoce.engines.coreml_files import unpack
from sottovoce.engines.coreml_speech import DECODER, ENCODER, MEL, CoreMLSpeech, Predict, SpeechModels
from sottovoce.engines.shapes import SpeechShape
from sottovoce.errors import BundleError
from sottovoce_compiler.lowerings.coreml.evaluator.reading import read_package
from sottovoce_compiler.lowerings.coreml.evaluator.running import Constants, Runner, check_known

ENGINE = "coreml"  # as manifests call it


def evaluated_speech(bundle: Bundle, threads: int) -> BundleEngine:
    """The evaluator of a speech bundle, not loaded yet. It takes as many threads as torch does."""
    shape = SpeechShape.of(bundle.manifest.model, bundle.manifest.audio)
    return CoreMLSpeech(shape, lambda: _speech_models(bundle), str(bundle.path))


def _speech_models(bundle: Bundle) -> SpeechModels:
    mel, encoder, decoder = (open_package(bundle, name)["main"] for name in (MEL, ENCODER, DECODER))

    def decoding(stays: Mapping[str, NDArray[Any]]) -> Predict:
        return decoder.fixed(stays).run

    return SpeechModels(mel.run, encoder.run, decoding)


def evaluated_chat(bundle: Bundle, threads: int, context: int | None) -> ChatEngine:
    """The loaded evaluator of a chat bundle. It takes as many threads as torch does."""
    engine = CoreMLChat(bundle, lambda: _chat_models(bundle), context)
    engine.load()
    return engine


def _chat_models(bundle: Bundle) -> ChatModels:
    functions = open_package(bundle, PACKAGE)
    if missing := set(FUNCTIONS) - set(functions):
        raise BundleError(f"{bundle.path}: its package has no function {min(missing)}")
    states = functions[STEP].new_states()
    return ChatModels(
        lambda name, inputs: functions[name].run(inputs, states),
        f"evaluator of Core ML programs (torch {version('torch')})",
    )


def open_package(bundle: Bundle, package: str) -> dict[str, Runner]:
    """The functions of a bundle's package by name. Raises BundleError for a damaged one, UnknownOperationError for one
    that the evaluator cannot compute, MissingExtraError without coremltools."""
    with tempfile.TemporaryDirectory(prefix="sottovoce-") as work:
        # Weights are mapped: the files may go when the constants have been read.
        return runners(unpack(bundle, package, Path(work)))


def runners(folder: Path) -> dict[str, Runner]:
    """The functions of the package in `folder` by name; see `open_package`."""
    package = read_package(folder)
    check_known(package)
    constants = Constants()
    return {name: Runner.of(function, constants) for name, function in package.functions.items()}
