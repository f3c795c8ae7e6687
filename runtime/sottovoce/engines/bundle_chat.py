"""What the engines of a chat bundle share that run its own graph: the vocabulary from the bundle's tokenizer, the one
sequence's length, and every check of what they are asked for.

An engine adds how its graph is opened, run and saved.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.chat.tokenizer import TokenizerVocabulary
from sottovoce.engines.chat import Vocabulary
from sottovoce.engines.chat_state import CacheFormat
from sottovoce.engines.shapes import ChatShape
from sottovoce.errors import EngineError, InputError

Float = NDArray[np.float32]

TOKENIZER = "tokenizer.json"
ROOM = 512  # positions to begin with, where the cache grows with the conversation
_MB = 1_000_000


class BundleChat:
    """One sequence over a bundle's graph; the common part of a `sottovoce.engines.chat.ChatEngine`.

    `context` is the room to have, at most what the bundle was made for, which is the default. `engine` is what
    messages call the engine. Raises InputError for a context that the bundle has no room for.
    """

    def __init__(self, bundle: Bundle, engine: str, context: int | None) -> None:
        self.shape = ChatShape.of(bundle.manifest.model)
        self._bundle, self._engine = bundle, engine
        self._context = self.shape.context if context is None else context
        if not 0 < self._context <= self.shape.context:
            raise InputError(f"a context of {context}; this bundle has room for 1 to {self.shape.context} tokens")
        self._length = 0
        self._vocabulary: TokenizerVocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """Read from the bundle when it is first asked for. Raises MissingExtraError without `tokenizers`."""
        if self._vocabulary is None:
            bundle = self._bundle
            made = TokenizerVocabulary(bundle.read(TOKENIZER), bundle.manifest.generation, self.shape.vocab_size)
            self._vocabulary = made
        return self._vocabulary

    @property
    def context(self) -> int:
        """See `ChatEngine.context`."""
        return self._context

    @property
    def length(self) -> int:
        """See `ChatEngine.length`."""
        return self._length

    def truncate(self, length: int) -> None:
        """See `ChatEngine.truncate`. Raises InputError for a negative length."""
        if length < 0:
            raise InputError(f"a sequence cannot have {length} positions")
        self._length = min(self._length, length)

    def attach(self, adapter: Path, scale: float) -> None:
        """Raises InputError: the bundle's weights are one with their graph."""
        raise InputError(
            f"{str(adapter)!r:.200}: a bundle for {self._engine} takes no adapter; "
            "compile with --adapter, or chat with a GGUF bundle"
        )

    def detach(self, keep: int = 0) -> None:
        """Nothing is ever attached; the sequence is emptied."""
        self._length = 0

    # -- for the engines -------------------------------------------------------------------------------------------

    def _checked(self, tokens: Sequence[int], outputs: int) -> NDArray[np.int64]:
        """The tokens as an array, all known and with room for them."""
        ids = np.asarray(tokens, np.int64)
        if not ids.size or not 1 <= outputs <= ids.size:
            raise InputError(f"{outputs} outputs of {ids.size} tokens; one token or more, and as many outputs at most")
        if ids.min() < 0 or ids.max() >= self.shape.vocab_size:
            raise InputError(f"tokens {ids.min()} to {ids.max()}; this model's are 0 to {self.shape.vocab_size - 1}")
        if self._length + ids.size > self._context:
            raise InputError(
                f"{self._length} + {ids.size} tokens exceed the context of {self._context}; shorten the conversation"
            )
        return ids

    def _room_for(self, positions: int) -> int:
        """Positions that a cache grows to when it must hold so many: it doubles, up to the context."""
        return min(self._context, 1 << (positions - 1).bit_length())

    def _check_memory(self, model_bytes: int, available: int | None) -> None:
        """Raises EngineError with both numbers where the model and the whole context would not fit."""
        cache = self.shape.cache_bytes(self._context)
        needed = model_bytes + cache
        if available is not None and needed > available:
            raise EngineError(
                f"the model needs about {needed // _MB} MB, {cache // _MB} MB of it for {self._context} positions; "
                f"{available // _MB} MB are available. A smaller context needs less, as does a model of fewer bits"
            )

    def _saved_as(self, magic: bytes, *files: str) -> CacheFormat:
        """How this engine saves the cache of the model that `files` of the bundle make. Raises BundleError where one is
        missing."""
        for name in files:
            self._bundle.locate(name)
        return CacheFormat(magic, "".join(self._bundle.manifest.files[name].sha256 for name in files), self.shape)

    def _check_embeds(self) -> None:
        """Raises InputError where the model is not made for embeddings."""
        if self.shape.pooling is None:
            raise InputError(f"{self._bundle.manifest.name} is made for chat and not for embeddings")

    def _pooled(self, hidden: Float) -> Float:
        """The embedding (width,) of unit length from hidden states (tokens, width), as the model's `pooling` says."""
        assert self.shape.pooling is not None  # checked before anything is run
        pooled: Float = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[self.shape.pooling]
        unit: Float = pooled / np.maximum(np.linalg.norm(pooled), np.float32(1e-12))
        return unit


def parts_of(tokens: int, outputs: int, size: int) -> list[tuple[slice, NDArray[np.int64], bool]]:
    """A run of `tokens` in parts of at most `size`: which tokens, of which of them logits are computed (counted within
    the part), and whether these are wanted: the last `outputs` of all are.

    A part of which nothing is wanted computes one position, as no graph is asked for none.
    """
    first, parts = tokens - outputs, []
    for start in range(0, tokens, size):
        end = min(start + size, tokens)
        positions = np.arange(min(max(first - start, 0), end - start - 1), end - start)
        parts.append((slice(start, end), positions, end > first))
    return parts
