"""One sequence of tokens in a llama.cpp context: appended to, cut back, saved. Knows nothing of files and adapters.

The tokens that were evaluated are remembered, so that a model whose cache cannot be cut back (a recurrent one) is run
again over what is kept, and so that an interrupt between llama.cpp's work and our note of it does no harm.
"""

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sottovoce.engines.llama_cpp.library import Library
from sottovoce.engines.llama_cpp.memory import Room
from sottovoce.errors import EngineError, InputError

Float = NDArray[np.float32]


def floats_at(address: int, count: int) -> Float:
    """`count` floats of llama.cpp's memory, (count,) float32, not copied."""
    return np.frombuffer(memoryview((ctypes.c_float * count).from_address(address)).cast("B"), np.float32)


class LlamaSequence:
    """`tokens` are those in the cache of `context`, a handle that its owner frees."""

    def __init__(self, library: Library, context: int, room: Room, vocabulary: int) -> None:
        self.context, self.room = context, room
        self.tokens: list[int] = []
        self._library, self._vocabulary = library, vocabulary
        self._functions = functions = library.functions
        self._memory = functions.llama_get_memory(context)
        self._decode, self._logits_of = functions.llama_decode, functions.llama_get_logits_ith
        self._batch = functions.llama_batch_init(room.batch, 0, 1)
        self._token = np.ctypeslib.as_array(self._batch.token, (room.batch,))
        self._position = np.ctypeslib.as_array(self._batch.pos, (room.batch,))
        self._wanted = np.ctypeslib.as_array(self._batch.logits, (room.batch,))
        for index in range(room.batch):
            self._batch.n_seq_id[index], self._batch.seq_id[index][0] = 1, 0
        self._dirty = False  # whether llama.cpp may have more in its cache than `tokens`
        self._address, self._view = 0, np.empty((1, 0), np.float32)

    def evaluate(self, tokens: Sequence[int], outputs: int) -> Float:
        """See `ChatEngine.evaluate`."""
        self._check(tokens, outputs)
        if self._dirty:
            self._cut(len(self.tokens))
        first = len(tokens) - outputs  # the first token whose logits are wanted
        kept = np.empty((outputs, self._vocabulary), np.float32) if outputs > 1 else None
        start = 0
        while start < len(tokens):
            end = min(start + self.room.batch, len(tokens), max(start, first) + self.room.outputs)
            wanted = max(0, end - max(start, first))
            self._run(tokens[start:end], wanted)
            if kept is not None:
                for index in range(end - wanted, end):
                    kept[index - first] = self._logits(index - start)[0]
            start = end
        return self._logits(-1) if kept is None else kept

    def truncate(self, length: int) -> None:
        """Forget all from `length` on."""
        if not 0 <= length <= len(self.tokens):
            raise InputError(f"cannot keep {length} positions of {len(self.tokens)}")
        if length < len(self.tokens) or self._dirty:
            self._cut(length)

    def save(self) -> bytes:
        """llama.cpp's bytes of the sequence."""
        if self._dirty:
            self._cut(len(self.tokens))
        size = self._functions.llama_state_seq_get_size(self.context, 0)
        data = np.empty(size, np.uint8)
        written = self._functions.llama_state_seq_get_data(self.context, data.ctypes.data, size, 0)
        if not 0 < written <= size:
            raise self._library.error("llama.cpp could not save the sequence")
        return data[:written].tobytes()

    def load(self, tokens: list[int], data: memoryview) -> None:
        """Replace the sequence. Raises InputError where llama.cpp does not take the bytes; it is then empty."""
        self._cut(0)
        self._dirty = True
        source = np.frombuffer(data, np.uint8)
        self._library.forget_errors()
        read = self._functions.llama_state_seq_set_data(self.context, source.ctypes.data, source.size, 0)
        held = self._functions.llama_memory_seq_pos_max(self._memory, 0) + 1
        if read != source.size or held != len(tokens):
            self._cut(0)
            raise InputError(f"the saved state is not one that llama.cpp takes: {held} of {len(tokens)} positions")
        self.tokens, self._dirty = tokens, False

    def run_for_embedding(self, tokens: Sequence[int]) -> None:
        """All `tokens` in one batch, in an empty cache."""
        self._check(tokens, 1)
        if self._memory:
            self._functions.llama_memory_clear(self._memory, False)
        self._run(tokens, len(tokens))

    def close(self) -> None:
        """Give the batch back; the context is its owner's."""
        if self._batch is not None:
            self._functions.llama_batch_free(self._batch)
            self._batch = None
        self.tokens, self._view = [], np.empty((1, 0), np.float32)

    def _check(self, tokens: Sequence[int], outputs: int) -> None:
        count = len(tokens)
        if not 1 <= outputs <= count:
            raise InputError(f"logits after {outputs} of {count} tokens were asked for")
        if len(self.tokens) + count > self.room.context:
            raise InputError(
                f"{len(self.tokens)} + {count} tokens do not fit a context of {self.room.context} positions; "
                "a larger context or a shorter conversation would"
            )
        if min(tokens) < 0 or max(tokens) >= self._vocabulary:
            wrong = next(token for token in tokens if not 0 <= token < self._vocabulary)
            raise InputError(f"token {wrong}; the model has 0 to {self._vocabulary - 1}")

    def _run(self, tokens: Sequence[int], outputs: int) -> None:
        """Append `tokens`, which are one batch, with logits of the last `outputs`."""
        count, past = len(tokens), len(self.tokens)
        self._library.forget_errors()
        if count == 1:  # a step of the answer: plain stores are quicker than slices
            self._token[0], self._position[0], self._wanted[0] = tokens[0], past, outputs
        else:
            self._token[:count] = tokens
            self._position[:count] = np.arange(past, past + count)
            self._wanted[:count] = 0
            self._wanted[count - outputs : count] = 1  # none of them where `outputs` is 0
        batch = self._batch
        batch.n_tokens = count
        self._dirty = True
        status = self._decode(self.context, batch)
        if status:
            self._failed(status, count)
        self.tokens.extend(tokens)
        self._dirty = False

    def _failed(self, status: int, count: int) -> None:
        if not self._functions.llama_memory_seq_rm(self._memory, 0, len(self.tokens), -1):
            self._functions.llama_memory_clear(self._memory, False)
            self.tokens = []
        self._dirty = False
        raise self._library.error(f"llama.cpp could not evaluate {count} tokens (code {status})")

    def _logits(self, index: int) -> Float:
        """(1, vocabulary), of a token of the last batch, in llama.cpp's memory."""
        address = self._logits_of(self.context, index)
        if address is None:
            raise EngineError(f"llama.cpp has no logits of token {index}")
        if address != self._address:  # nearly always the same memory
            self._view, self._address = floats_at(address, self._vocabulary).reshape(1, -1), address
        return self._view

    def _cut(self, length: int) -> None:
        """Make cache and tokens end at `length`."""
        functions, kept = self._functions, self.tokens[:length]
        self._dirty = True
        if length == 0 or not functions.llama_memory_seq_rm(self._memory, 0, length, -1):
            functions.llama_memory_clear(self._memory, False)
            self.tokens = []
            for start in range(0, length, self.room.batch):
                self._run(kept[start : start + self.room.batch], 0)
        self.tokens, self._dirty = kept, False
