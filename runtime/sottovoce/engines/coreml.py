"""Core ML on macOS, through coremltools: what computes the models of `coreml_speech` and `coreml_chat`.

Never run on macOS by those who wrote it: what it calls are coremltools' documented `MLModel`, `CompiledMLModel` and
`MLState`, and everything that can be run elsewhere is in the two modules above, where it is tested. Packages are copied
out of the bundle once, and compiled by the system once; both are kept in the cache.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.engines.coreml_chat import FUNCTIONS, PACKAGE, STEP, ChatModels, CoreMLChat
from sottovoce.engines.coreml_files import cache_folder, kept
from sottovoce.engines.coreml_speech import DECODER, ENCODER, MEL, CoreMLSpeech, Predict, SpeechModels, Values
from sottovoce.engines.shapes import SpeechShape
from sottovoce.errors import EngineError, MissingExtraError


def core_ml_speech(bundle: Bundle) -> CoreMLSpeech:
    """The engine of a speech bundle, not loaded yet."""
    shape = SpeechShape.of(bundle.manifest.model, bundle.manifest.audio)
    return CoreMLSpeech(shape, lambda: _speech_models(bundle), str(bundle.path))


def core_ml_chat(bundle: Bundle, context: int | None) -> CoreMLChat:
    """The loaded engine of a chat bundle."""
    engine = CoreMLChat(bundle, lambda: _chat_models(bundle), context)
    engine.load()
    return engine


def _speech_models(bundle: Bundle) -> SpeechModels:
    mel, encoder, decoder = (_predict(_opened(bundle, name)) for name in (MEL, ENCODER, DECODER))

    def decoding(stays: Values) -> Predict:
        return lambda inputs: decoder({**stays, **inputs})

    return SpeechModels(mel, encoder, decoding)


def _chat_models(bundle: Bundle) -> ChatModels:
    models = {name: _opened(bundle, PACKAGE, name) for name in FUNCTIONS}
    state = models[STEP].make_state()  # of either: both functions have the same states
    functions = {name: _predict(model, state) for name, model in models.items()}
    return ChatModels(lambda name, inputs: functions[name](inputs), f"Core ML (coremltools {_tools().__version__})")


def _opened(bundle: Bundle, package: str, function: str | None = None) -> Any:
    """A model, or one function of it; compiled by the system where that was not done before."""
    tools = _tools()
    folder = kept(bundle, package, cache_folder())
    compiled = folder.with_suffix(".mlmodelc")
    # Products in float16 are what all of these compute in; the norms of chat models are float32, which the Neural
    # Engine does not have.
    units = tools.ComputeUnit.ALL if function is None else tools.ComputeUnit.CPU_AND_GPU
    named = {} if function is None else {"function_name": function}
    try:
        if not compiled.is_dir():
            _keep(tools.models.MLModel(str(folder), compute_units=units, **named), compiled)
        return tools.models.CompiledMLModel(str(compiled), compute_units=units, **named)
    except Exception as error:  # coremltools passes on whatever the system says
        raise EngineError(f"Core ML cannot open {package}: {str(error).splitlines()[0]}") from error


def _keep(model: Any, compiled: Path) -> None:
    """The compiled form, which is gone when the model is, in its place in the cache; whole or not at all."""
    made = compiled.with_suffix(".making")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(model.get_compiled_model_path(), made)
    made.replace(compiled)


def _predict(model: Any, state: Any = None) -> Callable[[Values], Values]:
    extra = {} if state is None else {"state": state}

    def predict(inputs: Values) -> Mapping[str, NDArray[Any]]:
        try:
            found = model.predict({name: np.ascontiguousarray(value) for name, value in inputs.items()}, **extra)
        except Exception as error:  # coremltools passes on whatever the system says
            raise EngineError(f"Core ML: {str(error).splitlines()[0]}") from error
        return {name: np.asarray(value) for name, value in found.items()}

    return predict


def _tools() -> Any:
    try:
        import coremltools
    except ImportError as error:
        raise MissingExtraError("Core ML bundles need coremltools: pip install 'sottovoce[coreml]'") from error
    return coremltools
