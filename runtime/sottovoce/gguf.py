"""Reads the header of a GGUF file, the format of llama.cpp: what it says of a model, and where its tensors lie.

Versions 2 and 3, little endian, from a file or from within one (a bundle is an uncompressed zip). Nothing the file says
is believed: each count and length is held against the bytes that are there before anything is allocated, and what is
read is as if the file ended at `size`. Knows the format (github.com/ggml-org/ggml, docs/gguf.md) and nothing of models:
which keys a model needs, and which values make sense, is for those who read them.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from os import fstat
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import BundleError
from sottovoce.manifest import printable

MAX_HEADER = 1 << 28  # bytes before the tensors; a vocabulary of 262,144 tokens takes 7 MB
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_TEXTS = 1 << 22  # in one array; the largest vocabularies have an eighth of that
MAX_NAME = 1 << 10  # bytes of a key or a tensor's name
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 16

# ggml's tensor types: number -> name, values in a block, bytes of a block (ggml.h, ggml-common.h).
KINDS: Mapping[int, tuple[str, int, int]] = MappingProxyType(
    {
        **{0: ("F32", 1, 4), 1: ("F16", 1, 2), 28: ("F64", 1, 8), 30: ("BF16", 1, 2)},
        **{24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8)},
        **{2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24)},
        **{8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18)},
        **{10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176)},
        **{14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66)},
        **{16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 22: ("IQ2_S", 256, 82), 18: ("IQ3_XXS", 256, 98)},
        **{21: ("IQ3_S", 256, 110), 19: ("IQ1_S", 256, 50), 29: ("IQ1_M", 256, 56), 20: ("IQ4_NL", 32, 18)},
        **{23: ("IQ4_XS", 256, 136), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36)},
    }
)
_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        **{0: np.dtype("<u1"), 1: np.dtype("<i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"), 4: np.dtype("<u4")},
        **{5: np.dtype("<i4"), 6: np.dtype("<f4"), 10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8")},
        _BOOL: np.dtype("?"),
    }
)
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MAX_SHOWN = 100  # characters of a name in an error
_MAX_PATH = 500


@dataclass(frozen=True, slots=True)
class SkippedArray:
    """An array that was passed over (`skip_arrays_over`): how many values it has."""

    count: int


Value = bool | int | float | str | list[str] | NDArray[Any] | SkippedArray


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: `bytes` bytes from `offset` in the file (not in the GGUF within it), rows of blocks of `kind`.

    `shape` is NumPy's, the slowest dimension first: (rows, columns) where GGUF writes columns, rows. `kind` is a name
    of `KINDS`.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The header of the GGUF that has `size` bytes from `offset` in `path`; tensors begin at `data_offset` in `path`.

    Metadata are bool, int, float and str; arrays of numbers are NumPy arrays, arrays of texts are lists. Text that is
    not UTF-8 has its odd bytes as surrogates (`errors="surrogateescape"` brings them back).
    """

    path: Path
    offset: int
    size: int
    version: int
    alignment: int
    data_offset: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, GgufTensor]

    def tensor_bytes(self, tensor: GgufTensor) -> NDArray[np.uint8]:
        """The tensor's bytes, (tensor.bytes,) uint8, mapped from the file. Raises BundleError where it has changed."""
        try:
            return np.memmap(self.path, np.uint8, "r", tensor.offset, (tensor.bytes,))
        except (OSError, ValueError) as error:
            raise BundleError(f"{_shown_path(self.path)}: {_shown(tensor.name)} cannot be read: {error}") from None


def read_gguf(path: Path, offset: int = 0, size: int | None = None, skip_arrays_over: int | None = None) -> GgufFile:
    """The header of the GGUF file at `path`, or of the one that lies in it at `offset` with `size` bytes.

    Arrays of more than `skip_arrays_over` values are checked and left out. Raises BundleError naming the file, the key
    or tensor, and the number that is wrong.
    """
    try:
        with path.open("rb") as file:
            whole = fstat(file.fileno()).st_size
            size = whole - offset if size is None else size
            if not 0 <= offset <= whole - size or size < 0:
                raise BundleError(f"{size} bytes from {offset} on were asked for; the file has {whole}")
            return _read(_Bytes(file, offset, size), path, skip_arrays_over)
    except BundleError as error:
        raise BundleError(f"{_shown_path(path)}: {error}") from None
    except OSError as error:
        raise BundleError(f"{_shown_path(path)}: {error.strerror or error}") from None


class _Bytes:
    """The header as it is read, from its start; more of the file is fetched when it is needed."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self.offset, self.size = offset, size
        self._file = file
        self._file.seek(offset)
        self.data = b""
        self.at = 0

    def reach(self, count: int, what: str) -> None:
        """Have the next `count` bytes in `data`."""
        end = self.at + count
        if end <= len(self.data):
            return
        if end > self.size:
            raise BundleError(f"{what} needs {count} bytes at {self.at}; the file ends at {self.size}")
        if end > MAX_HEADER:
            raise BundleError(f"{what} ends at byte {end}; a header may have {MAX_HEADER}")
        wanted = min(max(end, 2 * len(self.data), 1 << 20), self.size, MAX_HEADER)
        self.data += self._file.read(wanted - len(self.data))
        if len(self.data) < end:
            raise BundleError(f"{what} needs {count} bytes at {self.at}; the file ends at {len(self.data)}")

    def take(self, count: int, what: str) -> bytes:
        self.reach(count, what)
        self.at += count
        return self.data[self.at - count : self.at]

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def text(self, what: str, most: int = MAX_HEADER) -> str:
        length = self.u64(f"{what}'s length")
        if length > most:
            raise BundleError(f"{what} has {length} bytes; at most {most} are possible")
        return self.take(length, what).decode("utf-8", "surrogateescape")

    def texts(self, count: int, what: str, *, keep: bool) -> list[str]:
        """`count` texts, or none of them where they are only to be walked over."""
        found: list[str] = []
        unpack, append = _U64.unpack_from, found.append
        for index in range(count):  # a hot loop: vocabularies have hundreds of thousands
            if self.at + 8 > len(self.data):
                self.reach(8, f"{what}, text {index} of {count},")
            start = self.at + 8
            end = start + unpack(self.data, self.at)[0]
            if end > len(self.data):
                self.reach(end - self.at, f"{what}, text {index} of {count},")
            if keep:
                append(self.data[start:end].decode("utf-8", "surrogateescape"))
            self.at = end
        return found

    def numbers(self, dtype: np.dtype[Any], count: int, what: str) -> NDArray[Any]:
        data = self.take(count * dtype.itemsize, what)
        if dtype.kind == "b" and data.strip(b"\0\1"):
            raise BundleError(f"{what} has {max(data)} where only true (1) and false (0) are possible")
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))


def _read(source: _Bytes, path: Path, skip_over: int | None) -> GgufFile:
    if (magic := source.take(4, "the magic")) != b"GGUF":
        raise BundleError(f"not a GGUF file: it begins with {magic!r}, not with b'GGUF'")
    version = source.u32("the version")
    if version and not version & 0xFFFF:
        raise BundleError("a big-endian GGUF file; only little-endian ones are read. Convert the model anew")
    if version not in (2, 3):
        raise BundleError(f"GGUF version {version}; 2 and 3 are read. Convert the model anew")
    tensors, keys = source.u64("the number of tensors"), source.u64("the number of keys")
    # The least that one takes: key, type and value; name, dimensions, type and offset.
    _check_count(source, "keys", keys, MAX_KEYS, 14)
    _check_count(source, "tensors", tensors, MAX_TENSORS, 33)
    metadata: dict[str, Value] = {}
    for index in range(keys):
        key = source.text(f"key {index} of {keys}", MAX_NAME)
        if not key or key in metadata:
            raise BundleError(f"key {index}, {_shown(key)}, is {'there twice' if key else 'empty'}")
        metadata[key] = _value(source, f"key {_shown(key)}", skip_over)
    alignment = _alignment(metadata)
    found = [_tensor(source, index, tensors) for index in range(tensors)]
    data_offset = source.at + -source.at % alignment
    placed = _placed(found, source, data_offset, alignment)
    return GgufFile(
        *(path, source.offset, source.size, version, alignment, source.offset + data_offset),
        *(MappingProxyType(metadata), MappingProxyType(placed)),
    )


def _check_count(source: _Bytes, what: str, count: int, most: int, least_bytes: int) -> None:
    possible = min(most, source.size // least_bytes)
    if count > possible:
        raise BundleError(f"{count} {what}; in {source.size} bytes at most {possible} are possible")


def _value(source: _Bytes, what: str, skip_over: int | None) -> Value:
    kind = source.u32(f"{what}'s type")
    if kind == _STRING:
        return source.text(what)
    if kind == _ARRAY:
        return _array(source, what, skip_over)
    if kind not in _NUMBERS:
        raise BundleError(f"{what} has type {kind}; 0 to 12 are possible")
    value: bool | int | float = source.numbers(_NUMBERS[kind], 1, what)[0].item()
    return value


def _array(source: _Bytes, what: str, skip_over: int | None) -> Value:
    kind, count = source.u32(f"{what}'s type"), source.u64(f"{what}'s length")
    if kind != _STRING and kind not in _NUMBERS:
        nested = "; arrays of arrays are not read" if kind == _ARRAY else ""
        raise BundleError(f"{what} is an array of type {kind}{nested}")
    least = 8 if kind == _STRING else _NUMBERS[kind].itemsize
    if count * least > source.size - source.at:
        raise BundleError(f"{what} is said to have {count} values; {source.size - source.at} bytes are left")
    if kind == _STRING and count > MAX_TEXTS:
        raise BundleError(f"{what} has {count} texts; at most {MAX_TEXTS} are possible")
    keep = skip_over is None or count <= skip_over
    found = source.texts(count, what, keep=keep) if kind == _STRING else source.numbers(_NUMBERS[kind], count, what)
    return found if keep else SkippedArray(count)


def _alignment(metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", 32)
    if not isinstance(value, int) or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise BundleError(f"general.alignment is {value!r}; a power of two up to {MAX_ALIGNMENT} is possible")
    return value


def _tensor(source: _Bytes, index: int, count: int) -> GgufTensor:
    """A tensor with its offset as written: from where the tensors begin."""
    name = source.text(f"the name of tensor {index} of {count}", MAX_NAME)
    what = f"tensor {_shown(name)}"
    dimensions = source.u32(f"{what}'s dimensions")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise BundleError(f"{what} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
    shape = tuple(source.u64(f"{what}'s shape") for _ in range(dimensions))
    kind = source.u32(f"{what}'s type")
    if kind not in KINDS:
        raise BundleError(f"{what} has type {kind}, which is not known here")
    type_name, block, block_bytes = KINDS[kind]
    if min(shape) < 1 or shape[0] % block:
        raise BundleError(f"{what} has the shape {shape}; {type_name} needs rows of a multiple of {block}")
    size = math.prod(shape) // block * block_bytes
    return GgufTensor(name, shape[::-1], type_name, source.u64(f"{what}'s offset"), size)


def _placed(found: list[GgufTensor], source: _Bytes, start: int, alignment: int) -> dict[str, GgufTensor]:
    """The tensors by name, their offsets counted from the start of the file, once none leaves it or meets another."""
    tensors: dict[str, GgufTensor] = {}
    end, before = 0, ""
    for tensor in sorted(found, key=lambda tensor: tensor.offset):
        what = f"tensor {_shown(tensor.name)}"
        if tensor.name in tensors:
            raise BundleError(f"{what} is there twice")
        if tensor.offset % alignment:
            raise BundleError(f"{what} begins at {tensor.offset}, which is no multiple of {alignment}")
        if tensor.offset < end:
            raise BundleError(f"{what} begins at {tensor.offset}, within {before}, which ends at {end}")
        end, before = tensor.offset + tensor.bytes, what
        if start + end > source.size:
            raise BundleError(f"{what} ends at byte {start + end}; the file has {source.size}")
        place = source.offset + start + tensor.offset
        tensors[tensor.name] = GgufTensor(tensor.name, tensor.shape, tensor.kind, place, tensor.bytes)
    return {tensor.name: tensors[tensor.name] for tensor in found}  # in the file's order


def _shown(name: str) -> str:
    return printable(name, _MAX_SHOWN)


def _shown_path(path: Path) -> str:
    return printable(str(path), _MAX_PATH)
