"""The file of weights of a package: entries of 64 bytes that say where values lie, and the values.

Layout (MLModel's `MILBlob/Blob/StorageFormat.hpp`): a header of 64 bytes; at an entry's offset the number 0xDEADBEEF, a
type, the bytes of the values, where they begin, and for types of less than a byte how many bits at the end are padding.
Every place is checked against the file's size before it is read.
"""

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.coreml.evaluator.errors import PackageError

_ENTRY = struct.Struct("<IIQQQ")
_SENTINEL = 0xDEADBEEF
# type in the file -> type of a value in a program, bits, and what NumPy reads it as.
_KINDS: Mapping[int, tuple[str, int, str]] = {
    1: ("FLOAT16", 16, "<f2"),
    2: ("FLOAT32", 32, "<f4"),
    3: ("UINT8", 8, "u1"),
    4: ("INT8", 8, "i1"),
    11: ("UINT4", 4, "u1"),
    13: ("UINT6", 6, "u1"),
    14: ("INT32", 32, "<i4"),
    15: ("UINT32", 32, "<u4"),
}


class Blobs:
    """The values in one `weight.bin`, mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = np.memmap(path, np.uint8, "r")

    def read(self, offset: int, kind: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        """The array of type `kind` and `shape` whose entry is at `offset`; types of less than a byte as uint8. Raises
        PackageError where that is not what lies there."""
        size = self._bytes.size
        if not 0 <= offset <= size - 64:
            raise PackageError(f"{self.path.name}: an entry at {offset}, beyond the end at {size}")
        sentinel, code, length, start, _ = _ENTRY.unpack(self._bytes[offset : offset + _ENTRY.size].tobytes())
        if sentinel != _SENTINEL or code not in _KINDS:
            raise PackageError(f"{self.path.name}: no entry at {offset} (type {code})")
        found, bits, dtype = _KINDS[code]
        count = math.prod(shape)
        if found != kind or length != -(-count * bits // 8) or not 0 <= start <= size - length:
            raise PackageError(
                f"{self.path.name}: {length} bytes of {found} at {offset}; the program has {count} of {kind}"
            )
        raw = self._bytes[start : start + length]
        if bits >= 8:
            return np.asarray(raw.view(dtype).reshape(shape))
        return unpacked(raw, bits, count).reshape(shape)


def unpacked(raw: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """`count` numbers of `bits` bits each, the lowest bit of a byte first."""
    if bits == 4:
        return np.stack([raw & 15, raw >> 4], axis=-1).reshape(-1)[:count]
    single = np.unpackbits(raw, bitorder="little")[: count * bits].reshape(count, bits)
    return np.packbits(single, axis=-1, bitorder="little")[:, 0]
