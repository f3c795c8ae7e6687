"""A model's vocabulary as llama.cpp has it. Knows tokens and bytes; templates and other metadata are read elsewhere."""

import ctypes
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import EngineError, InputError

_MAX_TEXT = 1 << 28  # bytes
_NORMAL = 1  # of llama.cpp's token types


class LlamaVocabulary:
    """Fulfils `sottovoce.engines.chat.Vocabulary`; usable until its engine is closed."""

    def __init__(self, functions: ctypes.CDLL, handle: int, types: NDArray[Any] | None = None) -> None:
        """`types` are those of the file's metadata, which spare asking for every token whether it is plain text."""
        self._functions = functions
        self._types = types
        self._handle: int | None = handle
        self.size: int = functions.llama_vocab_n_tokens(handle)
        bos: int = functions.llama_vocab_bos(handle)
        self.bos: int | None = bos if 0 <= bos < self.size else None
        self.adds_bos: bool = self.bos is not None and functions.llama_vocab_get_add_bos(handle)
        self._bytes: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(256)

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        is_end, handle = self._functions.llama_vocab_is_eog, self._open()
        return frozenset(token for token in range(self.size) if is_end(handle, token))

    @cached_property
    def controls(self) -> frozenset[int]:
        """Tokens that steer and are not text."""
        is_control, handle = self._functions.llama_vocab_is_control, self._open()
        types = self._types
        asked = range(self.size) if types is None else np.flatnonzero(types[: self.size] != _NORMAL).tolist()
        # llama.cpp makes a token that ends text a control token, whatever the file calls it.
        return frozenset(token for token in {*asked, *self.ends} if is_control(handle, token))

    @cached_property
    def table(self) -> list[bytes]:
        """The bytes of every token, in order; made on first use, a quarter of a second for the largest vocabularies."""
        return [self.token_bytes(token) for token in range(self.size)]

    def encode(self, text: str, *, special: bool) -> list[int]:
        """The tokens of `text`, without `bos`. With `special`, the spelling of a special token becomes that token.

        Half of a surrogate pair, which no UTF-8 has, is read as "?". Raises InputError for more than 256 MB.
        """
        data = text.encode("utf-8", "replace")
        if len(data) > _MAX_TEXT:
            raise InputError(f"a text of {len(data)} bytes; at most {_MAX_TEXT} can be read")
        if not data:
            return []
        found = np.empty(len(data) + 8, np.int32)  # a token stands for a byte or more; a few may be put before
        count = self._tokenize(data, found, special)
        if count < 0:
            found = np.empty(-count, np.int32)
            count = self._tokenize(data, found, special)
        if count < 0:
            raise EngineError("llama.cpp could not split a text into tokens")
        tokens: list[int] = found[:count].tolist()
        return tokens

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for: of a control token its spelling, of an unused one nothing."""
        found = self._bytes.get(token)
        return self._piece(token) if found is None else found

    def is_control(self, token: int) -> bool:
        """Whether a token steers and is not text."""
        self._checked(token)
        return token in self.controls

    def release(self) -> None:
        """The model is gone: nothing more can be asked."""
        self._handle = None

    def _tokenize(self, data: bytes, found: "np.ndarray[Any, np.dtype[np.int32]]", special: bool) -> int:
        into = found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count: int = self._functions.llama_tokenize(self._open(), data, len(data), into, found.size, False, special)
        return count

    def _piece(self, token: int) -> bytes:
        handle, convert = self._open(), self._functions.llama_token_to_piece
        count: int = convert(handle, self._checked(token), self._buffer, len(self._buffer), 0, True)
        if count < 0:
            self._buffer = ctypes.create_string_buffer(-count)
            count = convert(handle, token, self._buffer, len(self._buffer), 0, True)
        self._bytes[token] = self._buffer.raw[: max(count, 0)]
        return self._bytes[token]

    def _checked(self, token: int) -> int:
        if not 0 <= token < self.size:
            raise InputError(f"token {token}; the model has 0 to {self.size - 1}")
        return token

    def _open(self) -> int:
        if self._handle is None:
            raise EngineError("the engine of this vocabulary is closed")
        return self._handle
