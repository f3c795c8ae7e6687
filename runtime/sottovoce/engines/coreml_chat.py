"""A chat model over the functions of a Core ML package: parts of a prompt, steps and masks, whatever computes them.

On macOS coremltools does (`coreml.py`); on a workstation without Core ML the compiler's evaluator stands in for it.
What is here is the same over both. The cache is a state that the models keep; it is never read. A sequence cut short is
overwritten from there on, since no token sees what lies behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.chat.tokenizer import TokenizerVocabulary
from sottovoce.engines.chat import Vocabulary
from sottovoce.engines.onnxruntime_chat import TOKENIZER, ChatShape
from sottovoce.errors import InputError

PACKAGE = "Model"
STEP, PREFILL = "step", "prefill"
FUNCTIONS: Mapping[str, int] = {STEP: 1, PREFILL: 64}  # tokens that each takes; the first is what an app gets
_HIDDEN = np.float16(-3e4)  # added to a score, takes its position out of the softmax

Float = NDArray[np.float32]
Values = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ChatModels:
    """What computes the functions over one state. `run` is given a function's name and its inputs; `engine` says what
    it is, with its version."""

    run: Callable[[str, Values], Values]
    engine: str


class CoreMLChat:
    """The engine of one chat bundle; see `engines.chat.ChatEngine`. Cheap to make; `load` calls `open_models`.

    `context` is the room to have, at most what the bundle was made for, which is the default: the package always has
    room for all of that.
    """

    def __init__(self, bundle: Bundle, open_models: Callable[[], ChatModels], context: int | None = None) -> None:
        self.shape = ChatShape.of(bundle.manifest.model)
        self._bundle, self._open = bundle, open_models
        self._context = self.shape.context if context is None else context
        if not 0 < self._context <= self.shape.context:
            raise InputError(f"a context of {context}; this bundle has room for 1 to {self.shape.context} tokens")
        self._length = 0
        self._models: ChatModels | None = None
        self._vocabulary: TokenizerVocabulary | None = None

    def load(self) -> None:
        """Open the models. Raises what opening them raises, and MissingExtraError without `tokenizers`."""
        if self._models is None:
            self._vocabulary = self._read_vocabulary()
            self._models = self._open()

    def close(self) -> None:
        """Give the models' memory back."""
        self._models, self._length = None, 0

    def _read_vocabulary(self) -> TokenizerVocabulary:
        bundle = self._bundle
        return TokenizerVocabulary(bundle.read(TOKENIZER), bundle.manifest.generation, self.shape.vocab_size)

    @property
    def name(self) -> str:
        return self._opened().engine

    @property
    def vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            self._vocabulary = self._read_vocabulary()
        return self._vocabulary

    @property
    def context(self) -> int:
        return self._context

    @property
    def length(self) -> int:
        return self._length

    def evaluate(self, tokens: Sequence[int], *, outputs: int = 1) -> Float:
        """See `ChatEngine.evaluate`."""
        ids = self._checked(tokens, outputs)
        first = ids.size - outputs  # the first token whose logits are wanted
        parts = []
        at = 0
        while at < ids.size:
            name = self._next_function(ids.size - at)
            part = ids[at : at + FUNCTIONS[name]]
            logits = self._run(name, part)
            if at + part.size > first:
                parts.append(logits[max(first - at, 0) : part.size].astype(np.float32))
            at += part.size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def truncate(self, length: int) -> None:
        """See `ChatEngine.truncate`. Raises InputError for a negative length."""
        if length < 0:
            raise InputError(f"a sequence cannot have {length} positions")
        self._length = min(self._length, length)

    def save_state(self) -> bytes:
        """Raises InputError: Core ML lends a state and shows it to nobody."""
        raise InputError("a sequence cannot be saved with Core ML; it is read again from its text")

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        """Raises InputError, as nothing can have been saved; the sequence is then empty."""
        self._length = 0
        raise InputError("the saved sequence is not of this model and engine; start a new one")

    def attach(self, adapter: Path, scale: float) -> None:
        """Raises InputError: a Core ML package's weights are one with their program."""
        raise InputError(f"{str(adapter)!r:.200}: a Core ML bundle takes no adapter; merge it with compile --adapter")

    def detach(self, keep: int = 0) -> None:
        """Nothing is ever attached; the sequence is emptied."""
        self._length = 0

    def embed(self, tokens: Sequence[int]) -> Float:
        """Raises InputError: no package for embeddings is made."""
        raise InputError(f"{self._bundle.manifest.name} is made for chat and not for embeddings")

    def _opened(self) -> ChatModels:
        self.load()
        assert self._models is not None  # loaded above
        return self._models

    def _checked(self, tokens: Sequence[int], outputs: int) -> NDArray[np.int32]:
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
        return ids.astype(np.int32)

    def _next_function(self, left: int) -> str:
        """The one for many tokens wherever more than one is left and the cache has room for all that it writes."""
        fits = self._length + FUNCTIONS[PREFILL] <= self.shape.context
        return PREFILL if left > 1 and fits else STEP

    def _run(self, name: str, part: NDArray[np.int32]) -> NDArray[Any]:
        """Logits (n, vocabulary) of a part. What the function takes beyond it is padding, which is overwritten later:
        it sees what a token there would see, so that nothing in the cache is ever not a number."""
        size, context = FUNCTIONS[name], self.shape.context
        ids = np.zeros((1, size), np.int32)
        ids[0, : part.size] = part
        places = self._length + np.arange(size)
        mask = np.where(np.arange(context)[None] <= places[:, None], np.float16(0), _HIDDEN)
        found = self._opened().run(name, {"inputIds": ids, "causalMask": mask[None, None]})
        self._length += part.size
        logits: NDArray[Any] = found["logits"][0]
        return logits
