"""CTranslate2's model.bin: the binary format, read without the library.

Knows the layout of the file (versions 4 to 6) and how its numbers are quantized; what the variables mean is
in `ctranslate2_whisper`. Nothing is allocated on the file's word: every size is checked against the bytes
that are there.

Format, from CTranslate2's own writer (python/ctranslate2/specs/model_spec.py), little endian; a string is a
uint16 length that counts a final zero byte, then the bytes::

    uint32 version   string specification   uint32 revision   uint32 number of variables
    per variable:    string name   uint8 rank   uint32 dims[rank]   uint8 dtype   uint32 bytes   data
    uint32 number of aliases   per alias: string alias   string variable
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sottovoce_compiler.sources.checkpoint import Array, Checkpoint, SourceError

MODEL = "model.bin"
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
TOKENIZERS = ("tokenizer.json", "vocab.json")
VERSIONS = range(4, 7)  # before 4 a variable had no dtype, only an item size
MAX_RANK = 4  # a convolution has 3
MAX_NAME_BYTES = 1024
# By type id. bfloat16 is read as its 16 bits, since NumPy has no such dtype.
DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_STORED = {name: np.dtype("<u2" if name == "bfloat16" else name).newbyteorder("<") for name in DTYPES}


def is_layout(folder: Path) -> bool:
    """Whether `folder` has a model.bin and a file with its tokens."""
    return all(any((folder / name).is_file() for name in names) for names in ((MODEL,), (*VOCABULARIES, *TOKENIZERS)))


def open_layout(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; weights stay on disk until loaded."""
    from sottovoce_compiler.sources import ctranslate2_whisper

    model = read_model(folder / MODEL)
    if model.specification != ctranslate2_whisper.SPECIFICATION:
        raise SourceError(
            f"{model.path} holds a {model.specification}; of CTranslate2 models only "
            f"{ctranslate2_whisper.SPECIFICATION} is read: give the original model"
        )
    return ctranslate2_whisper.open_whisper(folder, model)


@dataclass(frozen=True)
class Variable:
    """One variable's place in the file."""

    shape: tuple[int, ...]
    dtype: str  # one of DTYPES
    offset: int  # of the data, in bytes from the start of the file


@dataclass(frozen=True)
class Model:
    """The table of a model.bin; an alias stands beside the variable it names, as the same object."""

    path: Path
    specification: str
    revision: int
    variables: Mapping[str, Variable]

    def variable(self, name: str) -> Variable:
        """The variable called `name`; a `SourceError` when the file has none."""
        try:
            return self.variables[name]
        except KeyError:
            raise SourceError(f"{self.path} has no variable {name}; convert the model again") from None

    def scalar(self, name: str, default: int) -> int:
        """An integer of the model's settings, or `default` when the file does not have it."""
        found = self.variables.get(name)
        if found is None:
            return default
        if found.shape not in ((), (1,)) or not found.dtype.startswith("int"):
            raise SourceError(f"{self.path}: {name} is {found.dtype} {list(found.shape)}, expected one integer")
        return int(self._stored(found, 0, 1)[0])

    def load(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of a variable: floats as stored, bfloat16 and quantized as float32."""
        variable = self.variable(name)
        rows = variable.shape[0] if variable.shape else 1
        stop = rows if stop is None else stop
        row_items = math.prod(variable.shape[1:])
        flat = self._stored(variable, start * row_items, (stop - start) * row_items)
        stored = flat.reshape((stop - start, *variable.shape[1:])) if variable.shape else flat.reshape(())
        if variable.dtype == "bfloat16":
            widened: Array = (stored.astype(np.uint32) << 16).view(np.float32)
            return widened
        if variable.dtype.startswith("int"):
            return self._dequantized(name, stored, start, stop)
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)

    def _dequantized(self, name: str, stored: Array, start: int, stop: int) -> Array:
        """q / scale in float32; int8 has a scale a row, int16 one for all (model_spec.py, `_quantize`)."""
        scale = self.variables.get(f"{name}_scale")
        if scale is None or scale.dtype not in ("float32", "float16"):
            raise SourceError(f"{self.path}: {name} is quantized but its scale {name}_scale is missing or no float")
        per_row = scale.shape != () and scale.shape != (1,)
        if per_row and scale.shape != self.variable(name).shape[:1]:
            raise SourceError(f"{self.path}: {name} has {self.variable(name).shape[0]} rows and {scale.shape} scales")
        factors = self._stored(scale, *((start, stop - start) if per_row else (0, 1))).astype(np.float32)
        if not np.all(np.isfinite(factors)) or not np.all(factors > 0):
            raise SourceError(f"{self.path}: {name}_scale holds a value that is not a positive number")
        quantized: Array = stored.astype(np.float32) / factors.reshape(-1, *[1] * (stored.ndim - 1))
        return quantized

    def _stored(self, variable: Variable, first: int, count: int) -> Array:
        dtype = _STORED[variable.dtype]
        values = np.fromfile(self.path, dtype, count, offset=variable.offset + first * dtype.itemsize)
        if len(values) != count:
            raise SourceError(f"{self.path} became shorter while it was read")
        return values


def read_model(path: Path) -> Model:
    """The table of contents of a model.bin, every entry checked against the file's size."""
    with path.open("rb") as file:
        reader = _Reader(path, file, path.stat().st_size)
        version = reader.integer("I", "the version")
        if version not in VERSIONS:
            raise SourceError(
                f"{path} has format version {version}; versions {VERSIONS[0]} to {VERSIONS[-1]} are read: "
                "if it is a CTranslate2 model, convert it again with ct2-transformers-converter"
            )
        specification = reader.string("the specification")
        revision = reader.integer("I", "the revision")
        variables = reader.variables()
        reader.add_aliases(variables)
        if reader.remaining():
            raise SourceError(f"{path} goes on for {reader.remaining()} bytes after its end; fetch it again")
    return Model(path, specification, revision, variables)


@dataclass(frozen=True)
class _Reader:
    path: Path
    file: BinaryIO
    size: int

    def remaining(self) -> int:
        return self.size - self.file.tell()

    def take(self, count: int, what: str) -> bytes:
        if count > self.remaining():
            raise self.truncated(count, what)
        return self.file.read(count)

    def truncated(self, count: int, what: str) -> SourceError:
        at = self.file.tell()
        return SourceError(
            f"{self.path} is truncated: {what} needs bytes {at} to {at + count} "
            f"and the file has {self.size}; fetch it again"
        )

    def integer(self, kind: str, what: str) -> int:
        return int(struct.unpack(f"<{kind}", self.take(struct.calcsize(kind), what))[0])

    def string(self, what: str) -> str:
        length = self.integer("H", what)
        if length > MAX_NAME_BYTES:
            raise SourceError(f"{self.path}: {what} claims {length} bytes, at most {MAX_NAME_BYTES} are read")
        text = self.take(length, what).removesuffix(b"\0")
        if not text.isascii():
            raise SourceError(f"{self.path}: {what} is {text[:40]!r}, expected ASCII")
        return text.decode("ascii")

    def variables(self) -> dict[str, Variable]:
        found: dict[str, Variable] = {}
        for number in range(self.integer("I", "the number of variables")):
            name = self.string(f"the name of variable {number}")
            if name in found:
                raise SourceError(f"{self.path} has the variable {name} twice; fetch it again")
            found[name] = self.variable(name)
        return found

    def variable(self, name: str) -> Variable:
        rank = self.integer("B", name)
        if rank > MAX_RANK:
            raise SourceError(f"{self.path}: {name} claims {rank} dimensions, at most {MAX_RANK} are read")
        shape = tuple(self.integer("I", name) for _ in range(rank))
        kind = self.integer("B", name)
        if kind >= len(DTYPES):
            raise SourceError(f"{self.path}: {name} has the type id {kind}; known are 0 to {len(DTYPES) - 1} {DTYPES}")
        size = self.integer("I", name)
        expected = math.prod(shape) * _STORED[DTYPES[kind]].itemsize
        if size != expected:
            raise SourceError(f"{self.path}: {name} {list(shape)} {DTYPES[kind]} has {size} bytes, expected {expected}")
        if size > self.remaining():
            raise self.truncated(size, name)
        offset = self.file.tell()
        self.file.seek(size, 1)
        return Variable(shape, DTYPES[kind], offset)

    def add_aliases(self, variables: dict[str, Variable]) -> None:
        for number in range(self.integer("I", "the number of aliases")):
            alias, name = self.string(f"alias {number}"), self.string(f"the target of alias {number}")
            if name not in variables:
                raise SourceError(f"{self.path}: the alias {alias} names {name}, which is not in the file")
            variables[alias] = variables[name]
            if f"{name}_scale" in variables:  # the scale of a quantized variable goes with it
                variables.setdefault(f"{alias}_scale", variables[f"{name}_scale"])
