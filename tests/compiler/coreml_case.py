"""Core ML packages of random models, made in this process, and what the evaluator says of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.engines.coreml_chat import FUNCTIONS, PREFILL, STEP
from sottovoce.engines.coreml_speech import DECODER, ENCODER, MEL, Predict, SpeechModels
from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.coreml.causal import CausalPrograms
from sottovoce_compiler.lowerings.coreml.causal_recipe import causal_parts
from sottovoce_compiler.lowerings.coreml.evaluator.running import Runner
from sottovoce_compiler.lowerings.coreml.package import SUFFIX, save
from sottovoce_compiler.lowerings.coreml.precision import deployment
from sottovoce_compiler.lowerings.coreml.program import program, specification
from sottovoce_compiler.lowerings.coreml.stand_in import runners
from sottovoce_compiler.lowerings.coreml.weights import stored
from sottovoce_compiler.lowerings.coreml.whisper import Parts, WhisperPrograms
from sottovoce_compiler.sources import Checkpoint

ABOUT = {"description": "a random model"}


def speech_packages(checkpoint: Checkpoint, spec: WhisperSpec, precision: str, folder: Path) -> Path:
    """The three packages in `folder`, every part in `precision`."""
    system = deployment(precision)
    way = stored(precision, system, 32)

    def load(name: str) -> np.ndarray:
        return checkpoint.tensors.load(name).astype(np.float32)

    for name, make in WhisperPrograms(spec, load, Parts(way, way, way), system).all().items():
        save(program({name: make()}), folder / f"{name}{SUFFIX}", specification(system), ABOUT)
    return folder


def speech_models(folder: Path) -> SpeechModels:
    """The evaluator of the packages in `folder`."""
    mel, encoder, decoder = (runners(folder / f"{name}{SUFFIX}")["main"] for name in (MEL, ENCODER, DECODER))

    def decoding(stays: Mapping[str, Any]) -> Predict:
        return decoder.fixed(stays).run

    return SpeechModels(mel.run, encoder.run, decoding)


def chat_package(model: CausalModel, precision: str, context: int, folder: Path) -> dict[str, Runner]:
    """The functions of a package made in `folder`."""
    parts = causal_parts(precision, model.spec, None)

    def load(name: str) -> np.ndarray:
        layer, _, role = name.rpartition(".")
        return model.load(role, int(layer) if layer else None)

    programs = CausalPrograms(model.spec, load, parts, context, "iOS18")
    functions = {name: make() for name, make in programs.all().items()}
    package = folder / f"Model{SUFFIX}"
    save(program(functions), package, specification("iOS18"), ABOUT)
    return runners(package)


def causal_mask(done: int, tokens: int, context: int) -> np.ndarray:
    places = done + np.arange(tokens)
    return np.where(np.arange(context)[None] <= places[:, None], np.float16(0), np.float16(-3e4))[None, None]


def stepped(functions: Mapping[str, Runner], tokens: list[int], context: int) -> np.ndarray:
    """Logits (tokens, vocabulary) float32, one token at a time over one state."""
    states = functions[STEP].new_states()
    rows = []
    for at, token in enumerate(tokens):
        inputs = {"inputIds": np.array([[token]], np.int32), "causalMask": causal_mask(at, 1, context)}
        rows.append(functions[STEP].run(inputs, states)["logits"][0, 0])
    return np.stack(rows).astype(np.float32)


def prefilled(functions: Mapping[str, Runner], tokens: list[int], context: int) -> np.ndarray:
    """Logits (tokens, vocabulary) float32 of at most as many tokens as the function takes."""
    size = FUNCTIONS[PREFILL]
    ids = np.zeros((1, size), np.int32)
    ids[0, : len(tokens)] = tokens
    inputs = {"inputIds": ids, "causalMask": causal_mask(0, size, context)}
    found = functions[PREFILL].run(inputs, functions[PREFILL].new_states())
    return found["logits"][0, : len(tokens)].astype(np.float32)
