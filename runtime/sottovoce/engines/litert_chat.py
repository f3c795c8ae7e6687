"""A language model's one graph on LiteRT, as a `ChatEngine`.

Knows the cache, which lies in the graph's inputs and is copied only when their sizes change, and who sees whom. Knows
nothing of messages or sampling. The graph is what `sottovoce_compiler.lowerings.litert.causal` makes.
"""

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.chat.tokenizer import TokenizerVocabulary
from sottovoce.engines.chat import Vocabulary
from sottovoce.engines.litert_model import HIDDEN, LiteRtModel, find_package
from sottovoce.engines.onnxruntime_chat import TOKENIZER, ChatShape
from sottovoce.errors import BundleError, EngineError, InputError
from sottovoce.memory import available_bytes

Float = NDArray[np.float32]
Sizes = dict[str, tuple[int, ...]]

GRAPH = "model.tflite"
PART = 128  # tokens a run: more was no faster, and an interrupt is answered after each
_ROOM = 512  # positions to begin with; the room doubles as a conversation grows
_MB = 1_000_000
_MAGIC = b"svtf0001"
_HEADER = struct.Struct("<8s32sQI")  # magic, fingerprint of the model, positions, CRC-32 of what follows


@dataclass(frozen=True, slots=True)
class Sight:
    """Who sees whom: `group` query heads share a key; a layer with a window sees the last `window` positions only."""

    group: int
    window: int | None

    @classmethod
    def of(cls, model: Mapping[str, Any], kv_heads: int) -> "Sight":
        """From the manifest's `model`. Raises BundleError naming the number that is missing or absurd."""
        heads, window = model.get("heads"), model.get("window")
        if not isinstance(heads, int) or isinstance(heads, bool) or not 0 < heads <= 1024 or heads % kv_heads:
            raise BundleError(f"the manifest has heads = {heads!r:.50}; a multiple of {kv_heads} is possible")
        if window is not None and (not isinstance(window, int) or isinstance(window, bool) or window < 1):
            raise BundleError(f"the manifest has window = {window!r:.50}; a whole number from 1 on is possible")
        return cls(heads // kv_heads, window)

    def biases(self, length: int, tokens: int, capacity: int) -> dict[str, Float]:
        """What is added to the scores of `tokens` new ones after `length` positions, by the graph's names."""
        past = np.full((1, capacity), HIDDEN, np.float32)
        past[:, :length] = 0
        new = np.triu(np.full((tokens, tokens), HIDDEN, np.float32), 1)
        found = {"past_bias": past[None, None], "new_bias": self._for_all(new)}
        if self.window is not None:
            here = np.arange(tokens)
            behind = length + here[:, None] - np.arange(capacity) >= self.window
            found["past_bias_local"] = self._for_all(np.where(behind, HIDDEN, past))
            found["new_bias_local"] = self._for_all(np.where(here[:, None] - here >= self.window, HIDDEN, new))
        return found

    def _for_all(self, bias: Float) -> Float:
        """(t, n) -> (1, 1, group * t, n)."""
        return np.tile(bias, (self.group, 1))[None, None]


class LiteRtChat:
    """The engine of one chat bundle; see `sottovoce.engines.chat.ChatEngine`. Cheap to make; `load` opens the graph.

    `context` is the room to have, at most what the bundle was made for, which is the default. Memory is taken as the
    conversation grows.
    """

    def __init__(self, bundle: Bundle, threads: int, context: int | None = None) -> None:
        model = bundle.manifest.model
        self.shape = ChatShape.of(model)
        self._sight = Sight.of(model, self.shape.kv_heads)
        self._bundle, self._threads = bundle, threads
        self._context = self.shape.context if context is None else context
        if not 0 < self._context <= self.shape.context:
            raise InputError(f"a context of {context}; this bundle has room for 1 to {self.shape.context} tokens")
        self._names = [f"{kind}_{i}" for i in range(self.shape.layers) for kind in ("key", "value")]
        self._length = self._capacity = 0
        self._vocabulary: TokenizerVocabulary | None = None
        self._graph: LiteRtModel | None = None
        self._name = ""

    # -- opening ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Check the graph's file and open it. Raises BundleError for a damaged one, EngineError when LiteRT refuses it
        or memory is too small, MissingExtraError without LiteRT or the `tokenizers` library."""
        if self._graph is not None:
            return
        self._check_memory(available_bytes())
        self._vocabulary = self._read_vocabulary()
        package = find_package()
        self._name = f"LiteRT ({package.name} {package.version})"
        cache = (1, self.shape.kv_heads, -1, self.shape.head_width)
        suffixes = ("",) if self._sight.window is None else ("", "_local")
        inputs: Sizes = {
            **dict.fromkeys(("tokens", "positions", "logit_positions"), (-1,)),
            **{f"{kind}_bias{suffix}": (1, 1, -1, -1) for kind in ("past", "new") for suffix in suffixes},
            **{f"past_{name}": cache for name in self._names},
        }
        results: Sizes = {"logits": (1, -1, self.shape.vocab_size), **dict.fromkeys(self._names, cache)}
        if self.shape.pooling is not None:
            results["hidden"] = (-1, _width(self._bundle.manifest.model))
        self._graph = LiteRtModel(self._bundle, GRAPH, self._threads, inputs, results)
        self._capacity = min(_ROOM, self._context)
        # LiteRT lays weights out for its kernels when sizes are first known: now, and not at the first token.
        self._resize(1, 1, {name: bias.shape for name, bias in self._sight.biases(0, 1, self._capacity).items()})
        if not package.maintained:
            from sottovoce.engines.litert_proof import prove_chat

            try:
                prove_chat(self._bundle, package, self)
            except BaseException:
                self.close()
                raise

    def _check_memory(self, available: int | None) -> None:
        """Raises EngineError with both numbers where the weights, as the kernels lay them out, and the whole context
        would not fit."""
        cache, location = self.shape.cache_bytes(self._context), self._bundle.locate(GRAPH)
        # Within a zip the file itself is in memory too; from a folder it is mapped, and goes where memory is short.
        needed = cache + location.size * (2 if location.offset else 1)
        if available is not None and needed > available:
            raise EngineError(
                f"the model needs about {needed // _MB} MB, {cache // _MB} MB of it for {self._context} positions; "
                f"{available // _MB} MB are available. A smaller context needs less, as does a model of fewer bits"
            )

    def _read_vocabulary(self) -> TokenizerVocabulary:
        bundle = self._bundle
        return TokenizerVocabulary(bundle.read(TOKENIZER), bundle.manifest.generation, self.shape.vocab_size)

    def close(self) -> None:
        """Give the graph's memory back."""
        self._graph, self._length, self._capacity = None, 0, 0

    # -- what a chat asks for --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

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
        """See `ChatEngine.evaluate`. Raises BundleError for a damaged file."""
        ids = self._checked(tokens, outputs)
        first = ids.size - outputs  # the first token whose logits are wanted
        parts = []
        for start in range(0, ids.size, PART):
            part = ids[start : start + PART]
            # A part of which nothing is wanted computes one position: no graph is asked for none.
            wanted = np.arange(min(max(first - start, 0), part.size - 1), part.size, dtype=np.int32)
            self._run(part, wanted)
            if start + part.size > first:
                parts.append(self._ready.result("logits")[0])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def truncate(self, length: int) -> None:
        """See `ChatEngine.truncate`. Raises InputError for a negative length."""
        if length < 0:
            raise InputError(f"a sequence cannot have {length} positions")
        self._length = min(self._length, length)

    def attach(self, adapter: Path, scale: float) -> None:
        """Raises InputError: a LiteRT bundle's weights are one with their graph."""
        raise InputError(
            f"{str(adapter)!r:.200}: a bundle for LiteRT takes no adapter; "
            "compile with --adapter, or chat with a GGUF bundle"
        )

    def detach(self, keep: int = 0) -> None:
        """Nothing is ever attached; the sequence is emptied."""
        self._length = 0

    def embed(self, tokens: Sequence[int]) -> Float:
        """See `ChatEngine.embed`. The sequence is empty afterwards."""
        if self.shape.pooling is None:
            raise InputError(f"{self._bundle.manifest.name} is made for chat and not for embeddings")
        self._length = 0
        ids = self._checked(tokens, 1)
        parts = []
        for start in range(0, ids.size, PART):
            self._run(ids[start : start + PART], np.zeros(1, np.int32))
            parts.append(self._ready.result("hidden"))
        self._length = 0
        hidden = np.concatenate(parts)
        pooled: Float = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[self.shape.pooling]
        unit: Float = pooled / np.maximum(np.linalg.norm(pooled), np.float32(1e-12))
        return unit

    # -- running ---------------------------------------------------------------------------------------------------

    @property
    def _ready(self) -> LiteRtModel:
        self.load()
        assert self._graph is not None  # load raises instead
        return self._graph

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
        self.load()
        self._make_room(self._length + ids.size)
        return ids.astype(np.int32)

    def _make_room(self, positions: int) -> None:
        """Room for `positions`, at most the context; the graph gets it at its next run."""
        if positions > self._capacity:
            self._capacity = min(self._context, 1 << (positions - 1).bit_length())

    def _run(self, tokens: NDArray[np.int32], wanted: NDArray[np.int32]) -> None:
        """One part: its results are then in the graph, its keys and values in the cache."""
        graph, count = self._ready, tokens.size
        biases = self._sight.biases(self._length, count, self._capacity)
        self._resize(count, wanted.size, {name: bias.shape for name, bias in biases.items()})
        for name, bias in biases.items():
            graph.put(name, bias)
        graph.put("tokens", tokens)
        graph.put("positions", np.arange(self._length, self._length + count))
        graph.put("logit_positions", wanted)
        graph.run()
        for name in self._names:
            self._put_cache(name, self._length, graph.result(name)[0])
        self._length += count

    def _resize(self, tokens: int, wanted: int, biases: Sizes) -> None:
        """The graph's inputs for so many tokens; the cache's used part goes on where its place has moved."""
        cache = (1, self.shape.kv_heads, self._capacity, self.shape.head_width)
        sizes = {
            **dict.fromkeys(("tokens", "positions"), (tokens,)),
            "logit_positions": (wanted,),
            **biases,
            **{f"past_{name}": cache for name in self._names},
        }
        graph = self._ready
        if not graph.differs(sizes):
            return
        kept = [graph.part(f"past_{name}", self._used) for name in self._names] if self._length else []
        try:
            graph.resize(sizes)
        except EngineError:
            self._length = 0  # the cache is gone with the old sizes
            raise
        for at, name in enumerate(self._names):
            graph.put(f"past_{name}", 0)  # what is hidden is multiplied by 0, and must be a number
            if kept:
                self._put_cache(name, 0, kept[at])

    @property
    def _used(self) -> tuple[int | slice, ...]:
        return 0, slice(None), slice(0, self._length)

    def _put_cache(self, name: str, start: int, values: Float) -> None:
        """Keys or values (kv heads, n, head width) of positions from `start` on."""
        self._ready.put_at(f"past_{name}", (0, slice(None), slice(start, start + values.shape[1])), values)

    # -- state -----------------------------------------------------------------------------------------------------

    def save_state(self) -> bytes:
        """The used part of the cache after a header; exact, so that what follows is what would have followed."""
        graph = self._ready
        parts = [graph.part(f"past_{name}", self._used).tobytes() for name in self._names] if self._length else []
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        return b"".join([_HEADER.pack(_MAGIC, self._fingerprint(), self._length, crc), *parts])

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        """See `ChatEngine.load_state`."""
        self._length = 0
        payload = self._checked_state(state, length)
        self._make_room(length)
        biases = self._sight.biases(0, 1, self._capacity)
        self._resize(1, 1, {name: bias.shape for name, bias in biases.items()})
        rows = (self.shape.kv_heads, length, self.shape.head_width)
        size = rows[0] * rows[1] * rows[2]
        for index, name in enumerate(self._names if length else ()):
            self._put_cache(name, 0, np.frombuffer(payload, np.float32, size, index * size * 4).reshape(rows))
        self._length = length

    def _fingerprint(self) -> bytes:
        """Of the graph with its weights, as the manifest has it."""
        return bytes.fromhex(hashlib.sha256(self._bundle.manifest.files[GRAPH].sha256.encode()).hexdigest())

    def _checked_state(self, state: bytes | memoryview, length: int) -> memoryview:
        """What follows the header. Raises InputError where it is not ours or damaged."""
        if not 0 <= length <= self._context:
            raise InputError(f"a saved sequence of {length} positions; at most {self._context} fit here")
        wanted = _HEADER.size + self.shape.cache_bytes(length)
        if len(state) != wanted:
            raise InputError(f"a saved sequence of {len(state)} bytes; {length} positions of this model have {wanted}")
        magic, fingerprint, positions, crc = _HEADER.unpack_from(state)
        if magic != _MAGIC or fingerprint != self._fingerprint():
            raise InputError("the saved sequence is not of this model and engine; start a new one")
        payload = memoryview(state)[_HEADER.size :]
        if positions != length or zlib.crc32(payload) != crc:
            raise InputError("the saved sequence is damaged; start a new one")
        return payload


def _width(model: Mapping[str, Any]) -> int:
    width = model.get("width")
    if not isinstance(width, int) or isinstance(width, bool) or not 0 < width <= 1 << 16:
        raise BundleError(f"the manifest has width = {width!r:.50}; 1 to {1 << 16} is possible")
    return width
