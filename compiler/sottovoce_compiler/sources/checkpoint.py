"""What every kind of source hands to the compiler: a `Checkpoint`.

Knows the Hugging Face names and nothing else; does not know where weights come from, how a file format looks,
or which model families can be compiled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import InputError

# The dtypes a checkpoint stores differ (float16, float32, ...), and so do the shapes.
Array = NDArray[np.generic]


class SourceError(InputError):
    """The SOURCE cannot be found, fetched or read; the message names it and says the way out."""


class Tensors(Protocol):
    """Weights under their Hugging Face names, read from disk one at a time and never kept."""

    def names(self) -> list[str]:
        """Every tensor's name, sorted."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading its data. An unknown name is a `SourceError`."""
        ...

    def load(self, name: str) -> Array:
        """A fresh array of `shape(name)` as stored; bfloat16 and quantized data come as float32."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was published: configuration, weights, tokens, and where it all came from.

    `config` and `generation_config` are Hugging Face's `config.json` and `generation_config.json`
    (synthesised where the source has its own format; the latter is empty where nothing is known).
    `vocabulary[id]` is the token's bytes, or a str for a special token such as ``"<|en|>"``; it may be
    shorter than `config["vocab_size"]`. `sha256` holds the hex digest of every file that was fetched or
    read, by file name.

    For language models: `tokenizer_config` and `special_tokens_map` are the files of those names (empty without),
    `chat_template` is the default one of chat_template.jinja or tokenizer_config.json, `pooling` how a model made for
    embeddings makes one of many (1_Pooling/config.json, as sentence-transformers publishes it).
    """

    spec: str
    name: str
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    tensors: Tensors
    vocabulary: Sequence[bytes | str]
    tokenizer_file: Path | None
    licence: str | None
    revision: str | None
    sha256: Mapping[str, str]
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    special_tokens_map: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    pooling: Literal["mean", "cls", "last"] | None = None
