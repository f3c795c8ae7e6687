"""Model families: one visible table from a config's `model_type` to the module that knows it.

A family is resolved by the config alone, never by guessing from a name. Unknown ones are refused by name.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sottovoce.errors import InputError

if TYPE_CHECKING:
    from sottovoce_compiler.families.causal import CausalModel
    from sottovoce_compiler.sources.checkpoint import Checkpoint

FAMILIES = {
    "whisper": "sottovoce_compiler.families.whisper",
    "llama": "sottovoce_compiler.families.llama",
    "mistral": "sottovoce_compiler.families.llama",
    "qwen2": "sottovoce_compiler.families.qwen2",
    "qwen3": "sottovoce_compiler.families.qwen3",
    "gemma3": "sottovoce_compiler.families.gemma3",
    "gemma3_text": "sottovoce_compiler.families.gemma3",
    "smollm3": "sottovoce_compiler.families.smollm3",
    "phi3": "sottovoce_compiler.families.phi3",
}
SPEECH = frozenset({"whisper"})  # the others are language models: their modules have `model(checkpoint)`


class UnsupportedModelError(InputError):
    """The model's architecture is not one this compiler knows, or its configuration contradicts itself."""


def family_of(config: Mapping[str, Any], name: str) -> str:
    """The key of `FAMILIES` for a Hugging Face config.

    Raises UnsupportedModelError naming the architecture found and those supported.
    """
    model_type = str(config.get("model_type", "(none)"))
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModelError(f"{name}: model_type {model_type!r} is not supported; supported: {known}")
    return model_type


def language_model(checkpoint: "Checkpoint") -> "CausalModel":
    """The decoder-only language model of a checkpoint; its weights stay on disk until they are asked for.

    Raises UnsupportedModelError naming the architecture, the config key or the tensor that does not fit, SourceError
    for a missing tensor.
    """
    family = family_of(checkpoint.config, checkpoint.name)
    if family in SPEECH:
        known = ", ".join(sorted(set(FAMILIES) - SPEECH))
        raise UnsupportedModelError(f"{checkpoint.name}: {family} is not a language model; those are {known}")
    model: CausalModel = import_module(FAMILIES[family]).model(checkpoint)
    return model
