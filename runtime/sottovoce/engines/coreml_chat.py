"""A chat model over the functions of a Core ML package: parts of a prompt, steps and masks, whatever computes them.

On macOS coremltools does (`coreml.py`); on a workstation without Core ML the compiler's evaluator stands in for it.
What is here is the same over both. The cache is a state that the models keep; it is never read. A sequence cut short is
overwritten from there on, since no token sees what lies behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.engines.bundle_chat import BundleChat
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


class CoreMLChat(BundleChat):
    """The engine of one chat bundle; see `engines.chat.ChatEngine`. Cheap to make; `load` calls `open_models`.

    `context` is the room to have, at most what the bundle was made for, which is the default: the package always has
    room for all of that.
    """

    def __init__(self, bundle: Bundle, open_models: Callable[[], ChatModels], context: int | None = None) -> None:
        super().__init__(bundle, "Core ML", context)
        self._open = open_models
        self._models: ChatModels | None = None

    def load(self) -> None:
        """Open the models. Raises what opening them raises, and MissingExtraError without `tokenizers`."""
        if self._models is None:
            _ = self.vocabulary  # what it raises is raised here
            self._models = self._open()

    def close(self) -> None:
        """Give the models' memory back."""
        self._models, self._length = None, 0

    @property
    def name(self) -> str:
        return self._opened().engine

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

    def save_state(self) -> bytes:
        """Raises InputError: Core ML lends a state and shows it to nobody."""
        raise InputError("a sequence cannot be saved with Core ML; it is read again from its text")

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        """Raises InputError, as nothing can have been saved; the sequence is then empty."""
        self._length = 0
        raise InputError("the saved sequence is not of this model and engine; start a new one")

    def embed(self, tokens: Sequence[int]) -> Float:
        """Raises InputError: no package for embeddings is made."""
        raise InputError(f"{self._bundle.manifest.name} is made for chat and not for embeddings")

    def _opened(self) -> ChatModels:
        self.load()
        assert self._models is not None  # loaded above
        return self._models

    def _next_function(self, left: int) -> str:
        """The one for many tokens wherever more than one is left and the cache has room for all that it writes."""
        fits = self._length + FUNCTIONS[PREFILL] <= self.shape.context
        return PREFILL if left > 1 and fits else STEP

    def _run(self, name: str, part: NDArray[np.int64]) -> NDArray[Any]:
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
