"""The schema of `.tflite` files, from ai-edge-litert, which is an extra of the compiler."""

from functools import cache
from importlib import import_module
from typing import Any

from sottovoce.errors import MissingExtraError


@cache
def schema() -> Any:
    """The module of the schema's tables. Raises MissingExtraError where ai-edge-litert is not installed."""
    try:
        return import_module("ai_edge_litert.schema_py_generated")
    except ImportError:
        raise MissingExtraError(
            "lowering to LiteRT needs ai-edge-litert, which is not installed: pip install 'sottovoce-compiler[litert]'"
        ) from None
