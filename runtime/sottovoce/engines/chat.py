"""What a chat needs of an engine: a vocabulary and one sequence of tokens with its cache. Nothing here imports one.

The decoding loop, sampling, templates, grammars and sessions are ours and the same over every engine; an engine only
turns tokens into logits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


class Vocabulary(Protocol):
    """The model's tokens, and how text becomes them."""

    @property
    def size(self) -> int:
        """How many logits there are; every token is below."""
        ...

    @property
    def bos(self) -> int | None:
        """The token that text begins with, where the model has one."""
        ...

    @property
    def adds_bos(self) -> bool:
        """Whether plain text is to begin with `bos` (a rendered template that already does is not given a second)."""
        ...

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    def encode(self, text: str, *, special: bool) -> list[int]:
        """The tokens of `text`, without `bos`. With `special`, the spelling of a special token becomes that token;
        without, it is text like any other."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for: of a control token its spelling, of an unused one nothing."""
        ...

    def is_control(self, token: int) -> bool:
        """Whether a token steers and is not text (it is never shown)."""
        ...


class ChatEngine(Protocol):
    """One loaded model with one sequence. Not for two threads at once."""

    @property
    def name(self) -> str:
        """The engine and its version, e.g. "llama.cpp b11549 (xllamacpp 2026.10.11549)"."""
        ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def context(self) -> int:
        """Positions there is room for."""
        ...

    @property
    def length(self) -> int:
        """Positions evaluated so far."""
        ...

    def evaluate(self, tokens: Sequence[int], *, outputs: int = 1) -> Float:
        """Append `tokens` (one or more) to the sequence; the logits (outputs, vocabulary) float32 after each of the
        last `outputs` of them, valid until the next call.

        Long input is run in parts, so that an interrupt is answered soon; what was run stays (see `length`).
        Raises EngineError where the engine fails, InputError where `context` would be exceeded.
        """
        ...

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on."""
        ...

    def save_state(self) -> bytes:
        """The cache of the sequence, for `load_state` of the same model, engine and settings."""
        ...

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        """Replace the sequence by a saved one of `length` positions. Raises InputError where `state` is not one of
        this engine's; the sequence is then empty."""
        ...

    def attach(self, adapter: Path, scale: float) -> None:
        """Add a LoRA adapter file; the sequence is emptied. Raises InputError for one that does not fit."""
        ...

    def detach(self, keep: int = 0) -> None:
        """Remove all adapters but the `keep` that were attached first; the sequence is emptied."""
        ...

    def embed(self, tokens: Sequence[int]) -> Float:
        """The model's embedding of `tokens`, (width,) float32, unit length. Raises InputError where the model is not
        made for it."""
        ...

    def close(self) -> None: ...
