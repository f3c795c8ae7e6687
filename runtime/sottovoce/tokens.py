"""The table from token ids to bytes, and back: all the tokenizer that speech needs on a device.

Knows byte-pair encoding by rank and nothing of languages or models. Special tokens are ids from `first_special` on;
they stand for no text. Encoding is for prompts: the rank of a merge is the id of its result, which holds for every
Whisper.
"""

import re
import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise

from sottovoce.errors import BundleError

_MAGIC = b"SVTK1\0"
_MAX_TOKENS = 1 << 20
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


def pack_tokens(texts: Sequence[bytes]) -> bytes:
    """The `tokens.bin` of a bundle: magic, count (u32), then for each token its length (u16) and bytes;
    little-endian."""
    body = b"".join(struct.pack("<H", len(text)) + text for text in texts)
    return _MAGIC + struct.pack("<I", len(texts)) + body


def unpack_tokens(data: bytes) -> list[bytes]:
    """The inverse of `pack_tokens`. Raises BundleError for anything else."""
    start = len(_MAGIC) + 4
    if len(data) < start or not data.startswith(_MAGIC):
        raise BundleError("tokens.bin is not a token table; compile the bundle again")
    (count,) = struct.unpack_from("<I", data, len(_MAGIC))
    if count > min(_MAX_TOKENS, len(data)):
        raise BundleError(f"tokens.bin claims {count} tokens in {len(data)} bytes; compile the bundle again")
    texts: list[bytes] = []
    at = start
    for _ in range(count):
        if at + 2 > len(data):
            raise BundleError(f"tokens.bin ends after {len(texts)} of {count} tokens; compile the bundle again")
        (length,) = struct.unpack_from("<H", data, at)
        texts.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    if at != len(data):
        raise BundleError(f"tokens.bin has {len(data)} bytes where its table needs {at}; compile the bundle again")
    return texts
