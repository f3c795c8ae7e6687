"""The stages of chat.py, one module each, with `run(plan, model, bundle)` or `run(plan, model)` that gives JSON values.

`STAGES` says which kind a stage is; a stage's libraries are imported when it runs, so that those that compare programs
can run where the compiler is not installed.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from chat_plan import LLAMA_CPP, ONNXRUNTIME, ChatBundle, ChatModel, Plan

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """`engines` are those whose bundles it is run on, none where it is of the source. `once` is for where precision
    says little: the first bundle of each engine."""

    module: str
    what: str
    engines: tuple[str, ...] = ()
    once: bool = False


_ANY = (LLAMA_CPP, ONNXRUNTIME)
STAGES: Mapping[str, Stage] = {
    "loop": Stage("chat_stages.loop", "Chat.stream beside llama.cpp's own loop", (LLAMA_CPP,)),
    "onnx": Stage("chat_stages.onnx_engine", "our onnxruntime engine beside onnxruntime-genai", (ONNXRUNTIME,)),
    "turn": Stage("chat_stages.turn", "first token of a second turn, and after a reload", _ANY, once=True),
    "constrained": Stage("chat_stages.constrained", "answers held to a schema beside free ones", _ANY, once=True),
    "lookup": Stage("chat_stages.lookup", "prompt lookup on and off", _ANY, once=True),
    "memory": Stage("chat_stages.memory", "load and peak memory, in fresh processes", _ANY),
    "kl": Stage("chat_stages.kl", "what each precision loses against the source"),
    "quantize": Stage("chat_stages.quantize", "our quantizers beside ggml's, byte for byte"),
    "compile": Stage("chat_stages.compile", "seconds of lower and pack, in a fresh process"),
}
"""In the order in which they are run: clocks first, while the machine is as quiet as it was."""


def run(name: str, plan: Plan, model: ChatModel, into: Json) -> None:
    """Run one stage and write what it found into the model's part of the result."""
    stage = STAGES[name]
    work: Any = import_module(stage.module)
    if not stage.engines:
        say(f"{model.name}: {name}")
        into[name] = work.run(plan, model)
        return
    for bundle in chosen(stage, model):
        say(f"{model.name}, {bundle.name}: {name}")
        into["bundles"][bundle.name][name] = work.run(plan, model, bundle)


def chosen(stage: Stage, model: ChatModel) -> tuple[ChatBundle, ...]:
    """The bundles that a stage is run on."""
    found = [bundle for bundle in model.bundles if bundle.engine in stage.engines]
    return tuple({bundle.engine: bundle for bundle in reversed(found)}.values())[::-1] if stage.once else tuple(found)


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)
