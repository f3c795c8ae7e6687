"""A language model's one graph on onnxruntime's CPU provider, as a `ChatEngine`.

Knows sessions, bindings and the cache, which is written in place and never copied. Knows nothing of messages or
sampling. Weights are mapped from the bundle itself, zip or folder. The graph is what
`sottovoce_compiler.lowerings.onnx.causal` makes.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.chat.tokenizer import TokenizerVocabulary
from sottovoce.engines.chat import Vocabulary
from sottovoce.errors import BundleError, EngineError, InputError
from sottovoce.memory import available_bytes
from sottovoce.onnx_external import load_graph

Float = NDArray[np.float32]

GRAPH, WEIGHTS, TOKENIZER = "model.onnx", "weights.bin", "tokenizer.json"
_MB = 1_000_000
PART = 256  # tokens a run: more was no faster, and an interrupt is answered after each
_SCORES = 1 << 22  # tokens of a run times room: onnxruntime holds a score of each pair for every head
_ROOM = 512  # positions to begin with; the room doubles as a conversation grows
_POOLINGS = ("mean", "cls", "last")
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_MAGIC = b"svkv0001"
_HEADER = struct.Struct("<8s32sQI")  # magic, fingerprint of the model, positions, CRC-32 of what follows


@dataclass(frozen=True, slots=True)
class ChatShape:
    """What the engine must know to size buffers; from the manifest's `model`."""

    layers: int
    kv_heads: int
    head_width: int
    vocab_size: int
    context: int
    pooling: str | None = None

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> "ChatShape":
        """Raises BundleError naming the number that is missing or absurd."""

        def bounded(key: str, most: int) -> int:
            value = model.get(key)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
                raise BundleError(f"the manifest has {key} = {value!r:.50}; 1 to {most} is possible")
            return value

        pooling = model.get("pooling")
        if pooling is not None and pooling not in _POOLINGS:
            raise BundleError(f"the manifest has pooling = {pooling!r:.50}; {', '.join(_POOLINGS)} are possible")
        return cls(
            layers=bounded("layers", 256),
            kv_heads=bounded("kv_heads", 256),
            head_width=bounded("head_width", 1024),
            vocab_size=bounded("vocab_size", 1 << 20),
            context=bounded("context", 1 << 20),
            pooling=pooling,
        )

    def cache_bytes(self, positions: int) -> int:
        """Bytes that the cache of so many positions takes."""
        return 2 * self.layers * self.kv_heads * self.head_width * 4 * positions


class OnnxChat:
    """The engine of one chat bundle; see `sottovoce.engines.chat.ChatEngine`. Cheap to make; `load` opens the session.

    `context` is the room to have, at most what the bundle was made for, which is the default. Memory is taken as the
    conversation grows: a run costs memory for all the room there is, used or not.
    """

    def __init__(self, bundle: Bundle, threads: int, context: int | None = None) -> None:
        self.shape = ChatShape.of(bundle.manifest.model)
        self._bundle, self._threads = bundle, threads
        self._context = self.shape.context if context is None else context
        if not 0 < self._context <= self.shape.context:
            raise InputError(f"a context of {context}; this bundle has room for 1 to {self.shape.context} tokens")
        self._length = 0
        self._vocabulary: TokenizerVocabulary | None = None
        self._session: Any = None
        self._intact: Future[None] | None = None
        self._caches: list[Float] = []
        self._capacity = 0  # positions that `_caches` have room for now

    # -- opening ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Open the session, and begin the weights' checksum, which the first use waits for.

        Raises BundleError for a damaged file, EngineError when onnxruntime refuses the graph, MissingExtraError without
        the `tokenizers` library.
        """
        if self._session is not None:
            return
        self._check_memory(available_bytes())
        self._vocabulary = self._read_vocabulary()
        # Before the session, which lets other threads run while it is made: it takes longer than the checksum.
        beside = ThreadPoolExecutor(1)
        self._intact = beside.submit(self._bundle.check_file, WEIGHTS)
        beside.shutdown(wait=False)
        self._session = self._open()
        self._many, self._one = self._session.io_binding(), self._session.io_binding()
        self._total = np.zeros(1, np.int32)
        self._token, self._first = np.zeros((1, 1), np.int64), np.zeros(1, np.int64)
        self._logits = np.empty((1, 1, self.shape.vocab_size), np.float32)
        with _engine_errors():
            self._grow(min(_ROOM, self._context))
            _bind(self._one, "tokens", self._token)
            _bind(self._one, "logit_positions", self._first)
            _bind(self._one, "logits", self._logits, output=True)

    def _check_memory(self, available: int | None) -> None:
        """Raises EngineError with both numbers where the weights and the whole context would not fit."""
        cache = self.shape.cache_bytes(self._context)
        needed = self._bundle.manifest.files[WEIGHTS].bytes + cache if WEIGHTS in self._bundle.manifest.files else cache
        if available is not None and needed > available:
            raise EngineError(
                f"the model needs about {needed // _MB} MB, {cache // _MB} MB of it for {self._context} positions; "
                f"{available // _MB} MB are available. A smaller context needs less, as does a model of fewer bits"
            )

    def close(self) -> None:
        """Give the session's memory back."""
        self._session = self._many = self._one = None
        self._caches, self._capacity, self._length = [], 0, 0

    def _read_vocabulary(self) -> TokenizerVocabulary:
        bundle = self._bundle
        return TokenizerVocabulary(bundle.read(TOKENIZER), bundle.manifest.generation, self.shape.vocab_size)

    def _make_room(self, positions: int) -> None:
        """Room for `positions`, at most the context. Raises InputError where there is no memory for it; the sequence
        then stays as it is."""
        if positions > self._capacity:
            with _engine_errors():
                self._grow(min(self._context, 1 << (positions - 1).bit_length()))

    def _grow(self, capacity: int) -> None:
        """Key and value of each layer, (1, kv heads, capacity, head width) float32, with what was there before."""
        shape = (1, self.shape.kv_heads, capacity, self.shape.head_width)
        try:
            # In one piece: NumPy asks for huge pages from 4 MB on, and touching small ones takes longer than the copy.
            caches = list(np.zeros((2 * self.shape.layers, *shape), np.float32))
        except MemoryError:
            wanted = self.shape.cache_bytes(capacity) >> 20
            raise InputError(
                f"{capacity} positions need {wanted} MB, more than there is; use a smaller context"
            ) from None
        for new, old in zip(caches, self._caches, strict=False):
            new[:, :, : self._length] = old[:, :, : self._length]
        self._caches, self._capacity = caches, capacity
        for binding in (self._many, self._one):
            self._bind_cache(binding)

    def _open(self) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The graph is written in its final form; what is folded are the tables of cosines and sines.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        graph = load_graph(self._bundle, GRAPH)
        options.add_session_config_entry(_FOLDER_KEY, str(graph.folder))
        try:
            return ort.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own types, which differ between versions
            raise EngineError(f"onnxruntime cannot open {GRAPH}: {str(error).splitlines()[0]}") from error

    def _bind_cache(self, binding: Any) -> None:
        """Each cache as both past and present: the graph then writes new positions in place."""
        for index, cache in enumerate(self._caches):
            name = f"{('key', 'value')[index % 2]}_{index // 2}"
            _bind(binding, f"past_{name}", cache)
            _bind(binding, f"present_{name}", cache, output=True)
        _bind(binding, "total_length", self._total)

    # -- what a chat asks for --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"onnxruntime {ort.__version__}"

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
        """See `ChatEngine.evaluate`. Raises BundleError for damaged weights."""
        ids = self._checked(tokens, outputs)
        if ids.size == 1:
            return self._step(int(ids[0]))
        first = ids.size - outputs  # the first token whose logits are wanted
        parts, size = [], self._part()
        for start in range(0, ids.size, size):
            part = ids[start : start + size]
            # A part of which nothing is wanted computes one position: no engine is asked for none.
            wanted = np.arange(min(max(first - start, 0), part.size - 1), part.size)
            logits = self._run(part, wanted)
            if start + part.size > first:
                parts.append(logits)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def truncate(self, length: int) -> None:
        """See `ChatEngine.truncate`. Raises InputError for a negative length."""
        if length < 0:
            raise InputError(f"a sequence cannot have {length} positions")
        self._length = min(self._length, length)

    def save_state(self) -> bytes:
        """The used part of the cache after a header; exact, so that what follows is what would have followed."""
        self.load()
        parts = [cache[0, :, : self._length].tobytes() for cache in self._caches]
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        return b"".join([_HEADER.pack(_MAGIC, self._fingerprint(), self._length, crc), *parts])

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        """See `ChatEngine.load_state`. The checksum is made beside the copy; before it holds the length is 0."""
        self.load()
        self._length = 0
        payload, crc = self._checked_state(state, length)
        size = self.shape.kv_heads * length * self.shape.head_width
        rows = (self.shape.kv_heads, length, self.shape.head_width)
        with ThreadPoolExecutor(1) as beside:
            found = beside.submit(zlib.crc32, payload)
            self._make_room(length)
            for index, cache in enumerate(self._caches if length else ()):
                values = np.frombuffer(payload, np.float32, size, index * size * 4)
                cache[0, :, :length] = values.reshape(rows)
        if found.result() != crc:
            raise InputError("the saved sequence is damaged; start a new one")
        self._length = length

    def attach(self, adapter: Path, scale: float) -> None:
        """Raises InputError: an ONNX bundle's weights are one with their graph."""
        raise InputError(
            f"{str(adapter)!r:.200}: a bundle for onnxruntime takes no adapter; "
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
        parts, size = [], self._part()
        for start in range(0, ids.size, size):
            self._run(ids[start : start + size], np.zeros(1, np.int64))
            parts.append(np.array(self._many.get_outputs()[-1].numpy()[0]))
        self._length = 0
        hidden = np.concatenate(parts)
        pooled: Float = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[self.shape.pooling]
        unit: Float = pooled / np.maximum(np.linalg.norm(pooled), np.float32(1e-12))
        return unit

    # -- running ---------------------------------------------------------------------------------------------------

    def _checked(self, tokens: Sequence[int], outputs: int) -> NDArray[np.int64]:
        """The tokens as an array, all known and with room for them; the weights known to be whole."""
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
        if self._intact is not None:
            self._intact.result()
            self._intact = None
        self._make_room(self._length + ids.size)
        return ids

    def _part(self) -> int:
        """Tokens to run at once, fewer where there is much room."""
        return min(PART, max(1, _SCORES // self._capacity))

    def _step(self, token: int) -> Float:
        """One token: everything stays bound, two numbers change."""
        self._token[0, 0] = token
        self._total[0] = self._length + 1
        with _engine_errors():
            self._session.run_with_iobinding(self._one)
        self._length += 1
        row: Float = self._logits[0]
        return row

    def _run(self, tokens: NDArray[np.int64], positions: NDArray[np.int64]) -> Float:
        """Logits (len(positions), vocabulary) float32 of one part."""
        fed, wanted = np.ascontiguousarray(tokens[None]), np.ascontiguousarray(positions, np.int64)
        self._total[0] = self._length + tokens.size
        with _engine_errors():
            _bind(self._many, "tokens", fed)
            _bind(self._many, "logit_positions", wanted)
            self._many.bind_output("logits")
            if self.shape.pooling is not None:
                self._many.bind_output("hidden")
            self._session.run_with_iobinding(self._many)
        self._length += tokens.size
        # Outputs come in the order of binding: the caches were bound first.
        result: Float = self._many.get_outputs()[len(self._caches)].numpy()[0]
        return result

    # -- state -----------------------------------------------------------------------------------------------------

    def _fingerprint(self) -> bytes:
        """Of the graph and its weights, as the manifest has them."""
        files = self._bundle.manifest.files
        return hashlib.sha256((files[GRAPH].sha256 + files[WEIGHTS].sha256).encode()).digest()

    def _checked_state(self, state: bytes | memoryview, length: int) -> tuple[memoryview, int]:
        """What follows the header, and its CRC-32 as noted. Raises InputError where the header is not ours."""
        if not 0 <= length <= self._context:
            raise InputError(f"a saved sequence of {length} positions; at most {self._context} fit here")
        wanted = _HEADER.size + self.shape.cache_bytes(length)
        if len(state) != wanted:
            raise InputError(f"a saved sequence of {len(state)} bytes; {length} positions of this model have {wanted}")
        magic, fingerprint, positions, crc = _HEADER.unpack_from(state)
        if magic != _MAGIC or fingerprint != self._fingerprint():
            raise InputError("the saved sequence is not of this model and engine; start a new one")
        if positions != length:
            raise InputError("the saved sequence is damaged; start a new one")
        return memoryview(state)[_HEADER.size :], crc


def _bind(binding: Any, name: str, array: NDArray[Any], *, output: bool = False) -> None:
    """The memory of `array` itself, which must outlive the binding's use."""
    bind = binding.bind_output if output else binding.bind_input
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # onnxruntime raises its own types, which differ between versions
        raise EngineError(f"onnxruntime: {str(error).splitlines()[0]}") from error
