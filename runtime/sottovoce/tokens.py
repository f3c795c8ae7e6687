"""The table from token ids to bytes, and back: all the tokenizer that speech needs on a device.

Knows byte-pair encoding by rank and nothing of languages or models. Special tokens are ids from `first_special` on;
they stand for no text. Encoding is for prompts: the rank of a merge is the id of its result, which holds for every
Whisper.
"""

import re
import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import BundleError

_MAGIC = b"SVTK1\0"
# GPT-2's split: contractions, words, numbers and runs of other signs with one leading space, and white space.
# [^\W\d_] is any letter; \d and \s are those of Unicode, as there.
_PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


class TokenTable:
    """`texts[id]` is the bytes of token `id`; ids from `first_special` on decode to nothing."""

    def __init__(self, texts: Sequence[bytes], first_special: int) -> None:
        self.texts = texts
        self.first_special = first_special
        self._ids: dict[bytes, int] | None = None

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ordinary tokens; bytes that end inside a character become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes of ordinary tokens, specials left out."""
        return b"".join(self.texts[token] for token in tokens if token < self.first_special)

    def encode(self, text: str) -> list[int]:
        """Tokens of `text`, as Whisper's own tokenizer splits it."""
        if self._ids is None:
            self._ids = {piece: i for i, piece in reversed(list(enumerate(self.texts[: self.first_special])))}
        ids = self._ids
        return [token for piece in _PIECES.findall(text) for token in _merge(piece.encode(), ids)]


def _merge(piece: bytes, ids: dict[bytes, int]) -> list[int]:
    """Byte-pair encoding: join the neighbours of lowest rank until none can be joined."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while len(parts) > 1:
        ranks = [ids.get(a + b) for a, b in pairwise(parts)]
        best = min((rank for rank in ranks if rank is not None), default=None)
        if best is None:
            break
        at = ranks.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ids[part] for part in parts if part in ids]


class PackedTexts(Sequence[bytes]):
    """A token table as it lies in the file: fifty thousand texts, none of them cut out before it is asked for."""

    def __init__(self, lengths: NDArray[np.uint16], body: bytes) -> None:
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._body = body

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]  # raises IndexError as a list does
        return self._body[self._ends[at - 1] if at else 0 : self._ends[at]]


def pack_tokens(texts: Sequence[bytes]) -> bytes:
    """The `tokens.bin` of a bundle: magic, count (u32), the length of each token (u16), all bytes; little-endian."""
    lengths = np.array([len(text) for text in texts], "<u2")
    return _MAGIC + struct.pack("<I", len(texts)) + lengths.tobytes() + b"".join(texts)


def unpack_tokens(data: bytes) -> Sequence[bytes]:
    """The inverse of `pack_tokens`. Raises BundleError for anything else."""
    start = len(_MAGIC) + 4
    if len(data) < start or not data.startswith(_MAGIC):
        raise BundleError("tokens.bin is not a token table; compile the bundle again")
    (count,) = struct.unpack_from("<I", data, len(_MAGIC))
    if 2 * count > len(data) - start:
        raise BundleError(f"tokens.bin claims {count} tokens in {len(data)} bytes; compile the bundle again")
    lengths = np.frombuffer(data, "<u2", count, start)
    needed = start + 2 * count + int(lengths.sum(dtype=np.int64))
    if needed != len(data):
        raise BundleError(f"tokens.bin has {len(data)} bytes where its table needs {needed}; compile the bundle again")
    return PackedTexts(lengths, data[start + 2 * count :])
