"""A language model's one graph on LiteRT, as a `ChatEngine`.

Knows the cache, which lies in the graph's inputs and is copied only when their sizes change, and who sees whom. Knows
nothing of messages or sampling. The graph is what `sottovoce_compiler.lowerings.litert.causal` makes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.engines.bundle_chat import ROOM, BundleChat, parts_of
from sottovoce.engines.chat_state import damaged
from sottovoce.engines.litert_model import HIDDEN, LiteRtModel, find_package
from sottovoce.engines.shapes import bounded
from sottovoce.errors import BundleError, EngineError
from sottovoce.memory import available_bytes

Float = NDArray[np.float32]
Sizes = dict[str, tuple[int, ...]]

GRAPH = "model.tflite"
PART = 128  # tokens a run: more was no faster, and an interrupt is answered after each
_MOST_WIDTH = 1 << 16
_MAGIC = b"svtf0001"


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


class LiteRtChat(BundleChat):
    """The engine of one chat bundle; see `sottovoce.engines.chat.ChatEngine`. Cheap to make; `load` opens the graph.

    `context` is the room to have, at most what the bundle was made for, which is the default. Memory is taken as the
    conversation grows.
    """

    def __init__(self, bundle: Bundle, threads: int, context: int | None = None) -> None:
        super().__init__(bundle, "LiteRT", context)
        self._threads = threads
        self._sight = Sight.of(bundle.manifest.model, self.shape.kv_heads)
        self._names = [f"{kind}_{i}" for i in range(self.shape.layers) for kind in ("key", "value")]
        self._capacity = 0
        self._graph: LiteRtModel | None = None
        self._name = ""

    # -- opening ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Check the graph's file and open it. Raises BundleError for a damaged one, EngineError when LiteRT refuses it
        or memory is too small, MissingExtraError without LiteRT or the `tokenizers` library."""
        if self._graph is not None:
            return
        location = self._bundle.locate(GRAPH)
        # The kernels lay the weights out anew. Within a zip the file itself is in memory too; from a folder it is
        # mapped, and goes where memory is short.
        self._check_memory(location.size * (2 if location.offset else 1), available_bytes())
        _ = self.vocabulary  # what it raises is raised here
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
            results["hidden"] = (-1, bounded(self._bundle.manifest.model, "width", _MOST_WIDTH))
        self._graph = LiteRtModel(self._bundle, GRAPH, self._threads, inputs, results)
        self._capacity = min(ROOM, self._context)
        # LiteRT lays weights out for its kernels when sizes are first known: now, and not at the first token.
        self._resize(1, 1, {name: bias.shape for name, bias in self._sight.biases(0, 1, self._capacity).items()})
        if not package.maintained:
            from sottovoce.engines.litert_proof import prove_chat

            try:
                prove_chat(self._bundle, package, self)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Give the graph's memory back."""
        self._graph, self._length, self._capacity = None, 0, 0

    # -- what a chat asks for --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    def evaluate(self, tokens: Sequence[int], *, outputs: int = 1) -> Float:
        """See `ChatEngine.evaluate`. Raises BundleError for a damaged file."""
        ids = self._checked(tokens, outputs)
        logits = []
        for part, positions, are_wanted in parts_of(ids.size, outputs, PART):
            self._run(ids[part], positions)
            if are_wanted:
                logits.append(self._ready.result("logits")[0])
        return logits[0] if len(logits) == 1 else np.concatenate(logits)

    def embed(self, tokens: Sequence[int]) -> Float:
        """See `ChatEngine.embed`. The sequence is empty afterwards."""
        self._check_embeds()
        self._length = 0
        ids, hidden = self._checked(tokens, 1), []
        for part, _, _ in parts_of(ids.size, 1, PART):
            self._run(ids[part], np.zeros(1, np.int64))
            hidden.append(self._ready.result("hidden"))
        self._length = 0
        return self._pooled(np.concatenate(hidden))

    # -- running ---------------------------------------------------------------------------------------------------

    @property
    def _ready(self) -> LiteRtModel:
        self.load()
        assert self._graph is not None  # load raises instead
        return self._graph

    def _checked(self, tokens: Sequence[int], outputs: int) -> NDArray[np.int64]:
        """As every engine's, with room made for them."""
        ids = super()._checked(tokens, outputs)
        self.load()
        self._make_room(self._length + ids.size)
        return ids

    def _make_room(self, positions: int) -> None:
        """Room for `positions`, at most the context; the graph gets it at its next run."""
        if positions > self._capacity:
            self._capacity = self._room_for(positions)

    def _run(self, tokens: NDArray[np.int64], wanted: NDArray[np.int64]) -> None:
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
        parts = [graph.part(f"past_{name}", self._used) for name in self._names] if self._length else []
        return self._saved_as(_MAGIC, GRAPH).pack(parts, self._length)

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        """See `ChatEngine.load_state`."""
        self._length = 0
        saved = self._saved_as(_MAGIC, GRAPH).unpack(state, length, self._context)
        if not saved.holds():
            raise damaged()
        self._make_room(length)
        biases = self._sight.biases(0, 1, self._capacity)
        self._resize(1, 1, {name: bias.shape for name, bias in biases.items()})
        for name, values in zip(self._names, saved.arrays(), strict=False):
            self._put_cache(name, 0, values)
        self._length = length
