"""Model families: one visible table from a config's `model_type` to the module that knows it.

A family is resolved by the config alone, never by guessing from a name. Unknown ones are refused by name.
"""

from collections.abc import Mapping
from typing import Any

from sottovoce.errors import InputError

FAMILIES = {"whisper": "sottovoce_compiler.families.whisper"}


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
