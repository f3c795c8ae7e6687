"""A language model's one graph on onnxruntime's CPU provider, as a `ChatEngine`.

Knows sessions, bindings and the cache, which is written in place and never copied. Knows nothing of messages or
sampling. Weights are mapped from the bundle itself, zip or folder. The graph is what
`sottovoce_compiler.lowerings.onnx.causal` makes.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.engines.bundle_chat import ROOM, BundleChat, parts_of
from sottovoce.engines.chat_state import damaged
from sottovoce.engines.onnx_session import engine_errors, open_session
from sottovoce.errors import InputError
from sottovoce.huge_pages import HugePages
from sottovoce.memory import available_bytes

Float = NDArray[np.float32]

GRAPH, WEIGHTS = "model.onnx", "weights.bin"
PART = 256  # tokens a run: more was no faster, and an interrupt is answered after each
_SCORES = 1 << 22  # tokens of a run times room: onnxruntime holds a score of each pair for every head
_MAGIC = b"svkv0001"


class OnnxChat(BundleChat):
    """The engine of one chat bundle; see `sottovoce.engines.chat.ChatEngine`. Cheap to make; `load` opens the session.

    `context` is the room to have, at most what the bundle was made for, which is the default. Memory is taken as the
    conversation grows: a run costs memory for all the room there is, used or not.
    """

    def __init__(self, bundle: Bundle, threads: int, context: int | None = None) -> None:
        super().__init__(bundle, "onnxruntime", context)
        self._threads = threads
        self._huge_pages = HugePages()
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
        self._check_memory(self._bundle.locate(WEIGHTS).size, available_bytes())
        _ = self.vocabulary  # what it raises is raised here
        # Before the session, which lets other threads run while it is made: it takes longer than the checksum.
        beside = ThreadPoolExecutor(1)
        self._intact = beside.submit(self._bundle.check_file, WEIGHTS)
        beside.shutdown(wait=False)
        with self._huge_pages:
            self._session = open_session(self._bundle, GRAPH, self._threads)
        self._many, self._one = self._session.io_binding(), self._session.io_binding()
        self._total = np.zeros(1, np.int32)
        self._token, self._first = np.zeros((1, 1), np.int64), np.zeros(1, np.int64)
        self._logits = np.empty((1, 1, self.shape.vocab_size), np.float32)
        with engine_errors():
            self._grow(min(ROOM, self._context))
            _bind(self._one, "tokens", self._token)
            _bind(self._one, "logit_positions", self._first)
            _bind(self._one, "logits", self._logits, output=True)

    def close(self) -> None:
        """Give the session's memory back."""
        self._huge_pages.close()
        self._huge_pages = HugePages()
        self._session = self._many = self._one = None
        self._caches, self._capacity, self._length = [], 0, 0

    def _make_room(self, positions: int) -> None:
        """Room for `positions`, at most the context. Raises InputError where there is no memory for it; the sequence
        then stays as it is."""
        if positions > self._capacity:
            with engine_errors():
                self._grow(self._room_for(positions))

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

    def evaluate(self, tokens: Sequence[int], *, outputs: int = 1) -> Float:
        """See `ChatEngine.evaluate`. Raises BundleError for damaged weights."""
        ids = self._checked(tokens, outputs)
        if ids.size == 1:
            return self._step(int(ids[0]))
        wanted = []
        for part, positions, are_wanted in parts_of(ids.size, outputs, self._part()):
            logits = self._run(ids[part], positions)
            if are_wanted:
                wanted.append(logits)
        return wanted[0] if len(wanted) == 1 else np.concatenate(wanted)

    def save_state(self) -> bytes:
        """The used part of the cache after a header; exact, so that what follows is what would have followed."""
        self.load()
        return self._saved_as(_MAGIC, GRAPH, WEIGHTS).pack(
            [cache[0, :, : self._length] for cache in self._caches], self._length
        )

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        """See `ChatEngine.load_state`. The checksum is made beside the copy; before it holds the length is 0."""
        self.load()
        self._length = 0
        saved = self._saved_as(_MAGIC, GRAPH, WEIGHTS).unpack(state, length, self._context)
        with ThreadPoolExecutor(1) as beside:
            holds = beside.submit(saved.holds)
            self._make_room(length)
            for cache, values in zip(self._caches, saved.arrays(), strict=False):
                cache[0, :, :length] = values
        if not holds.result():
            raise damaged()
        self._length = length

    def embed(self, tokens: Sequence[int]) -> Float:
        """See `ChatEngine.embed`. The sequence is empty afterwards."""
        self._check_embeds()
        self._length = 0
        ids, hidden = self._checked(tokens, 1), []
        for part, _, _ in parts_of(ids.size, 1, self._part()):
            self._run(ids[part], np.zeros(1, np.int64))
            hidden.append(np.array(self._many.get_outputs()[-1].numpy()[0]))
        self._length = 0
        return self._pooled(np.concatenate(hidden))

    # -- running ---------------------------------------------------------------------------------------------------

    def _checked(self, tokens: Sequence[int], outputs: int) -> NDArray[np.int64]:
        """As every engine's, with room made for them, and the weights known to be whole."""
        ids = super()._checked(tokens, outputs)
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
        with engine_errors():
            self._session.run_with_iobinding(self._one)
        self._length += 1
        row: Float = self._logits[0]
        return row

    def _run(self, tokens: NDArray[np.int64], positions: NDArray[np.int64]) -> Float:
        """Logits (len(positions), vocabulary) float32 of one part."""
        fed, wanted = np.ascontiguousarray(tokens[None]), np.ascontiguousarray(positions, np.int64)
        self._total[0] = self._length + tokens.size
        with engine_errors():
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


def _bind(binding: Any, name: str, array: NDArray[Any], *, output: bool = False) -> None:
    """The memory of `array` itself, which must outlive the binding's use."""
    bind = binding.bind_output if output else binding.bind_input
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
