"""Tiny bundles for LiteRT: the random Whisper and the random language model of other tests, lowered otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle_case import manifest_fields
from chat_bundle_case import CONTEXT, byte_tokenizer, chat_fields, random_causal
from random_whisper import random_checkpoint

from sottovoce.tokens import pack_tokens
from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.litert.causal import CausalLowering
from sottovoce_compiler.lowerings.litert.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.litert.graph import Model, WeightFile
from sottovoce_compiler.lowerings.litert.speech_lowering import ENGINE, lower_litert_speech
from sottovoce_compiler.pack import write_bundle
from sottovoce_targets import load_target


def make_speech_bundle(
    path: Path, precision: str = "fp32", files: Mapping[str, bytes] | None = None, **changes: Any
) -> Path:
    """The random Whisper of `random_whisper`, its graphs and token table, and `files`; `changes` are of the manifest's
    `model`."""
    checkpoint = random_checkpoint()
    spec, target = whisper_spec(checkpoint), load_target("linux-x86-64")
    lowered = lower_litert_speech(checkpoint, spec, precision, target, path.parent, lambda done: None)
    fields = manifest_fields(
        engine=dict(lowered.engine),
        audio=spec.audio_json(),
        model={**lowered.model, **changes},
        generation=spec.generation_json(),
        name="random",
    )
    table = [token.encode() if isinstance(token, str) else token for token in checkpoint.vocabulary]
    return write_bundle(path, fields, {**lowered.files, "tokens.bin": pack_tokens(table), **(files or {})})


def make_chat_bundle(
    path: Path,
    precision: str = "fp32",
    model: CausalModel | None = None,
    files: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> Path:
    """`model`, the random one of `chat_bundle_case` by default, and `files`; `changes` are of the manifest's
    `model`."""
    model = model or random_causal()
    graph, spec = path.with_suffix(".tflite"), model.spec
    with WeightFile(path.with_suffix(".weights")) as weights:
        file = Model(weights)
        CausalLowering(model, causal_recipe(precision, spec), file, CONTEXT).graph()
        file.write(graph, "nano")
    fields = chat_fields(spec, engine={**ENGINE, "cpu_features": []})
    window = {"window": spec.sliding_window} if spec.sliding_window else {}
    pooling = {"width": spec.width} if spec.pooling else {}
    fields["model"] = {**fields["model"], "heads": spec.heads, **window, **pooling, **changes}
    return write_bundle(path, fields, {"model.tflite": graph, "tokenizer.json": byte_tokenizer(), **(files or {})})
