"""A sequence's cache as bytes: a header that says whose it is, then keys and values of the positions in use.

The bytes come from a file that anybody may have written: nothing of them is believed before the header fits this model
and the length, and nothing is kept before the checksum holds.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.engines.shapes import ChatShape
from sottovoce.errors import InputError

Float = NDArray[np.float32]

_HEADER = struct.Struct("<8s32sQI")  # layout of the rest, fingerprint of the model, positions, CRC-32 of the rest


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved cache whose header fits; `crc` is what its checksum must be."""

    payload: memoryview
    crc: int
    rows: tuple[int, int, int]

    def holds(self) -> bool:
        """Whether the payload has its checksum; may run beside the reading of it."""
        return zlib.crc32(self.payload) == self.crc

    def arrays(self) -> Iterator[Float]:
        """Keys and values (kv heads, positions, head width) of each layer, in the order saved: views, not copies."""
        size = self.rows[0] * self.rows[1] * self.rows[2]
        for start in range(0, len(self.payload) // 4, size or 1):
            yield np.frombuffer(self.payload, np.float32, size, start * 4).reshape(self.rows)


@dataclass(frozen=True, slots=True)
class CacheFormat:
    """How one engine saves the cache of one model: `magic` is 8 bytes, `digests` are of the files that make the model.

    The same arrays in another engine's hands come from other arithmetic, so each engine has its own magic.
    """

    magic: bytes
    digests: str
    shape: ChatShape

    def pack(self, arrays: Sequence[Float], length: int) -> bytes:
        """The used part of the cache, exactly, so that what follows is what would have followed."""
        parts = [array.tobytes() for array in arrays] if length else []
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        return b"".join([_HEADER.pack(self.magic, self._fingerprint(), length, crc), *parts])

    def unpack(self, state: bytes | memoryview, length: int, context: int) -> Saved:
        """What was saved for `length` positions. Raises InputError where it is not of this model, or not so long."""
        if not 0 <= length <= context:
            raise InputError(f"a saved sequence of {length} positions; at most {context} fit here")
        wanted = _HEADER.size + self.shape.cache_bytes(length)
        if len(state) != wanted:
            raise InputError(f"a saved sequence of {len(state)} bytes; {length} positions of this model have {wanted}")
        magic, fingerprint, positions, crc = _HEADER.unpack_from(state)
        if magic != self.magic or fingerprint != self._fingerprint():
            raise InputError("the saved sequence is not of this model and engine; start a new one")
        if positions != length:
            raise damaged()
        rows = (self.shape.kv_heads, length, self.shape.head_width)
        return Saved(memoryview(state)[_HEADER.size :], crc, rows)

    def _fingerprint(self) -> bytes:
        return hashlib.sha256(self.digests.encode()).digest()


def damaged() -> InputError:
    """What is raised for a saved sequence whose bytes are not those that were saved."""
    return InputError("the saved sequence is damaged; start a new one")
