"""One model in llama.cpp with one sequence of tokens: tokens become logits. Knows nothing of text or of choices."""

import ctypes
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Location
from sottovoce.engines.llama_cpp import state as states
from sottovoce.engines.llama_cpp.checks import ModelFacts, check_adapter, check_model
from sottovoce.engines.llama_cpp.library import Library, load_library
from sottovoce.engines.llama_cpp.memory import Room, check_memory
from sottovoce.engines.llama_cpp.model import open_adapter, open_context, open_model
from sottovoce.engines.llama_cpp.sequence import LlamaSequence, floats_at
from sottovoce.engines.llama_cpp.vocabulary import LlamaVocabulary
from sottovoce.errors import EngineError, InputError
from sottovoce.gguf import GgufFile, read_gguf
from sottovoce.manifest import printable
from sottovoce.memory import available_bytes

Float = NDArray[np.float32]

USUAL_CONTEXT = 4096  # positions, where the model was trained for as many
BATCH = (
    256  # tokens run at once: a part of a long prompt takes a second or two on a small board, and Ctrl-C waits for it
)
OUTPUTS = 32  # of which logits are kept at once; each takes a vocabulary of floats twice
_POOLINGS = {1: "mean", 2: "cls", 3: "last"}


@dataclass(frozen=True, slots=True)
class _Loaded:
    library: Library
    gguf: GgufFile
    facts: ModelFacts
    model: int
    vocabulary: LlamaVocabulary
    sequence: LlamaSequence


@dataclass(frozen=True, slots=True)
class _Adapter:
    handle: int
    scale: float
    identity: bytes


class LlamaCpp:
    """A chat's engine (`sottovoce.engines.chat.ChatEngine`). Cheap to make; `load`, or the first use, opens the model.

    `location` is a `.gguf` file, or where one lies in a bundle. `context` is how many positions there shall be room
    for, by default what the model was trained for and at most 4096. `threads` are by default one a core, at most four.
    """

    def __init__(self, location: Path | Location, *, threads: int | None = None, context: int | None = None) -> None:
        self._location = location if isinstance(location, Location) else Location(location, 0, -1)
        self._threads = threads or min(4, os.cpu_count() or 1)
        self._wanted_context = context
        self._loaded: _Loaded | None = None
        self._closed = False
        self._adapters: list[_Adapter] = []
        self._embedder: int | None = None
        self._fingerprint: bytes | None = None

    def load(self) -> None:
        """Check the file, then the memory there is, then open the model where it lies.

        Raises BundleError for a file that is damaged or no model, MissingExtraError where llama.cpp is not installed,
        EngineError where it fails or memory is short, InputError for a context beyond the model's.
        """
        if self._closed:
            raise EngineError("this engine is closed; make another")
        if self._loaded is not None:
            return
        size = None if self._location.size < 0 else self._location.size
        gguf = read_gguf(self._location.path, self._location.offset, size)
        facts = check_model(gguf)
        room = self._room(facts)
        library = load_library()
        check_memory(sum(tensor.bytes for tensor in gguf.tensors.values()), facts, room, available_bytes())
        self._loaded = _open(library, gguf, facts, room, self._threads)

    @property
    def name(self) -> str:
        return load_library().name

    @property
    def vocabulary(self) -> LlamaVocabulary:
        return self._open().vocabulary

    @property
    def gguf(self) -> GgufFile:
        """The model file's header: metadata such as the chat template."""
        return self._open().gguf

    @property
    def context(self) -> int:
        return self._open().sequence.room.context

    @property
    def length(self) -> int:
        return len(self._open().sequence.tokens)

    def evaluate(self, tokens: Sequence[int], *, outputs: int = 1) -> Float:
        """See `ChatEngine.evaluate`. One output is llama.cpp's own memory, which the next call overwrites."""
        return (self._loaded or self._open()).sequence.evaluate(tokens, outputs)

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on. Raises InputError where there are fewer."""
        self._open().sequence.truncate(length)

    def save_state(self) -> bytes:
        """The sequence's cache, behind a header of ours (`state.py`)."""
        loaded = self._open()
        return states.pack(self._identity(loaded), loaded.sequence.tokens, loaded.sequence.save())

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        """Replace the sequence by a saved one. Raises InputError for a state that is damaged, or of another model,
        other adapters or another llama.cpp; the sequence is then empty."""
        loaded = self._open()
        sequence = loaded.sequence
        sequence.truncate(0)
        if length > sequence.room.context:
            raise InputError(f"the saved state has {length} positions; there is room for {sequence.room.context}")
        tokens, data = states.unpack(state, self._identity(loaded), length, loaded.vocabulary.size)
        sequence.load(tokens, data)

    def attach(self, adapter: Path, scale: float = 1.0) -> None:
        """Add a LoRA adapter (GGUF); the sequence is emptied. Raises InputError for one that was made for another
        model, BundleError for a damaged file."""
        loaded = self._open()
        if not math.isfinite(scale) or scale == 0:
            raise InputError(f"an adapter's scale is {scale!r}; a number other than 0 is possible")
        gguf = read_gguf(adapter)
        check_adapter(gguf, loaded.gguf)
        identity = states.fingerprint(gguf)
        loaded.sequence.truncate(0)
        handle = open_adapter(loaded.library, loaded.model, gguf)
        self._use_adapters(loaded, [*self._adapters, _Adapter(handle, scale, identity)])

    def detach(self, keep: int = 0) -> None:
        """Remove all adapters but the `keep` that were attached first; the sequence is emptied."""
        loaded = self._open()
        loaded.sequence.truncate(0)
        gone = self._adapters[keep:]
        self._use_adapters(loaded, self._adapters[:keep])
        for adapter in gone:
            loaded.library.functions.llama_adapter_lora_free(adapter.handle)

    def embed(self, tokens: Sequence[int]) -> Float:
        """The model's embedding of `tokens`, (width,) float32 of unit length, pooled as its metadata say. Raises
        InputError where they say nothing of it: the model is not made for embeddings."""
        loaded = self._open()
        if loaded.facts.pooling not in _POOLINGS:
            raise InputError(
                f"{printable(str(loaded.gguf.path), 500)} is not made for embeddings: its metadata name no pooling"
            )
        room, functions = loaded.sequence.room, loaded.library.functions
        if not 0 < len(tokens) <= room.context:
            raise InputError(f"{len(tokens)} tokens to embed; 1 to {room.context} are possible")
        if self._embedder is None:  # all of a text at once, as attention that looks both ways needs it
            whole = Room(room.context, room.context, room.context)
            self._embedder = open_context(loaded.library, loaded.model, whole, self._threads, embeddings=True)
            self._use_adapters(loaded, self._adapters)
        once = LlamaSequence(
            loaded.library, self._embedder, Room(room.context, room.context, 1), loaded.vocabulary.size
        )
        try:
            once.run_for_embedding(tokens)
            pointer = functions.llama_get_embeddings_seq(self._embedder, 0)
            if not pointer:
                raise loaded.library.error("llama.cpp gave no embedding")
            width: int = functions.llama_model_n_embd_out(loaded.model)
            vector = floats_at(pointer, width).copy()
        finally:
            once.close()
        length = np.float32(np.linalg.norm(vector))
        unit: Float = vector / length if length > 0 else vector
        return unit

    def close(self) -> None:
        """Give all memory back; logits and the vocabulary must not be used any more. Twice is once."""
        self._closed = True
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        functions = loaded.library.functions
        loaded.vocabulary.release()
        loaded.sequence.close()
        functions.llama_free(loaded.sequence.context)
        if self._embedder is not None:
            functions.llama_free(self._embedder)
        for adapter in self._adapters:
            functions.llama_adapter_lora_free(adapter.handle)
        self._adapters, self._embedder = [], None
        functions.llama_model_free(loaded.model)

    def _open(self) -> _Loaded:
        if self._loaded is None:
            self.load()
            assert self._loaded is not None
        return self._loaded

    def _room(self, facts: ModelFacts) -> Room:
        context = self._wanted_context
        if context is None:
            context = min(facts.context, USUAL_CONTEXT)
        if not 1 <= context <= facts.context:
            raise InputError(f"a context of {context} positions; the model was trained for 1 to {facts.context}")
        return Room(context, min(BATCH, context), min(OUTPUTS, BATCH, context))

    def _use_adapters(self, loaded: _Loaded, adapters: list[_Adapter]) -> None:
        count = len(adapters)
        handles = (ctypes.c_void_p * count)(*(adapter.handle for adapter in adapters))
        scales = (ctypes.c_float * count)(*(adapter.scale for adapter in adapters))
        for context in (loaded.sequence.context, self._embedder):
            if context is not None:
                loaded.library.functions.llama_set_adapters_lora(context, handles, count, scales)
        self._adapters = adapters

    def _identity(self, loaded: _Loaded) -> bytes:
        """Of what the cache depends on: model, adapters and the library that lays it out."""
        if self._fingerprint is None:
            self._fingerprint = states.fingerprint(loaded.gguf)
        digest = hashlib.sha256(self._fingerprint)
        digest.update(loaded.library.name.encode())
        for adapter in self._adapters:
            digest.update(adapter.identity + np.float32(adapter.scale).tobytes())
        return digest.digest()


def _open(library: Library, gguf: GgufFile, facts: ModelFacts, room: Room, threads: int) -> _Loaded:
    model = open_model(library, gguf)
    try:
        context = open_context(library, model, room, threads)
    except BaseException:
        library.functions.llama_model_free(model)
        raise
    vocabulary = _vocabulary(library, gguf, model)
    return _Loaded(library, gguf, facts, model, vocabulary, LlamaSequence(library, context, room, vocabulary.size))


def _vocabulary(library: Library, gguf: GgufFile, model: int) -> LlamaVocabulary:
    types = gguf.metadata.get("tokenizer.ggml.token_type")
    known = types if isinstance(types, np.ndarray) else None
    return LlamaVocabulary(library.functions, library.functions.llama_model_get_vocab(model), known)
