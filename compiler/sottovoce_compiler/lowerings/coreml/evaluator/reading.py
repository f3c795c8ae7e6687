"""Parses a saved package into `program.Package`: Core ML's own file format, its classes from coremltools.

Nothing of coremltools' converters is used: what is read is what lies in the files.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce_compiler.lowerings.coreml.evaluator.blobs import Blobs, unpacked
from sottovoce_compiler.lowerings.coreml.evaluator.errors import PackageError
from sottovoce_compiler.lowerings.coreml.evaluator.program import (
    Argument,
    Function,
    Literal,
    Operation,
    Package,
    Typed,
    Variable,
)
from sottovoce_compiler.lowerings.coreml.protobuf import milproto, modelproto

_MANIFEST_BYTES = 1 << 20
_MAX_VALUES = 1 << 31  # of one variable; the largest of models that fit a phone have a quarter of it
_WEIGHTS = "@model_path/"
# Types whose literals lie in the field `bytes`: NumPy's type, bits.
_IN_BYTES: Mapping[str, tuple[str, int]] = {
    **{"FLOAT16": ("<f2", 16), "INT8": ("i1", 8), "UINT8": ("u1", 8)},
    **{"UINT4": ("u1", 4), "UINT6": ("u1", 6), "UINT32": ("<u4", 32)},
}
_FIELDS: Mapping[str, tuple[str, Any]] = {
    "BOOL": ("bools", np.bool_),
    "INT32": ("ints", np.int32),
    "FLOAT32": ("floats", np.float32),
}


def read_package(folder: Path) -> Package:
    """The package in `folder`. Raises PackageError for one that is damaged or made otherwise than ours are."""
    root = _root(folder)
    model = modelproto().Model()
    try:
        model.ParseFromString(root.read_bytes())
    except Exception as error:  # protobuf raises its own types, which differ between versions
        raise PackageError(f"{folder.name}: the specification is damaged: {error}") from None
    if model.WhichOneof("Type") != "mlProgram":
        raise PackageError(f"{folder.name} holds a {model.WhichOneof('Type')}; a program is needed")
    reader = _Reader(root.parent)
    functions = {name: reader.function(name, one) for name, one in sorted(model.mlProgram.functions.items())}
    default = model.description.defaultFunctionName or "main"
    if default not in functions:
        raise PackageError(f"{folder.name} has no function {default!r}")
    return Package(functions, default, model.specificationVersion, dict(model.description.metadata.userDefined.items()))


def _root(folder: Path) -> Path:
    """The specification that the manifest names."""
    try:
        text = (folder / "Manifest.json").read_bytes()[:_MANIFEST_BYTES]
        manifest = json.loads(text)
        path = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        found = (folder / "Data" / str(path)).resolve(strict=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{folder.name} is no package: {error!r:.200}") from None
    if not found.is_relative_to(folder.resolve()):
        raise PackageError(f"{folder.name}: its specification lies outside of it")
    return found


class _Reader:
    """Reads the functions of one package whose weights lie beside its specification."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Blobs] = {}

    def function(self, name: str, function: Any) -> Function:
        blocks = function.block_specializations
        if function.opset not in blocks:
            raise PackageError(f"function {name} has no block for {function.opset}")
        block = blocks[function.opset]
        inputs: list[Typed] = []
        states: list[Typed] = []
        for one in function.inputs:
            state = one.type.WhichOneof("type") == "stateType"
            (states if state else inputs).append(
                _typed(one.name, one.type.stateType.wrappedType if state else one.type)
            )
        operations = tuple(self.operation(one) for one in block.operations)
        return Function(name, tuple(inputs), tuple(states), operations, tuple(block.outputs))

    def operation(self, operation: Any) -> Operation:
        if operation.blocks:
            raise PackageError(f"operation {operation.type} has blocks of its own, as no program of ours does")
        arguments: dict[str, tuple[Argument, ...]] = {}
        places: list[str] = []
        for name, value in operation.attributes.items():
            if name != "name":
                arguments[name] = (self.literal(value),)
                places.append(f"{name}={_place(value)}")
        for name, given in operation.inputs.items():
            arguments[name] = tuple(
                Variable(one.name) if one.WhichOneof("binding") == "name" else self.literal(one.value)
                for one in given.arguments
            )
            places += [f"{name}={one.name or _place(one.value)}" for one in given.arguments]
        constant = operation.type == "const" or operation.type.startswith("constexpr_")
        key = f"{operation.type} {' '.join(sorted(places))}" if constant else None
        return Operation(operation.type, arguments, tuple(_typed(one.name, one.type) for one in operation.outputs), key)

    def literal(self, value: Any) -> Literal:
        typed = _typed("a literal", value.type)
        if value.WhichOneof("value") == "blobFileValue":
            return self._file(value.blobFileValue.fileName).read(value.blobFileValue.offset, typed.kind, typed.shape)
        tensor = value.immediateValue.tensor
        if typed.kind == "STRING":
            return _single([str(text) for text in tensor.strings.values])
        if typed.kind in _IN_BYTES:
            dtype, bits = _IN_BYTES[typed.kind]
            raw = np.frombuffer(tensor.bytes.values, np.uint8)
            count = int(np.prod(typed.shape, dtype=np.int64))
            array: Any = raw.view(dtype) if bits >= 8 else unpacked(raw, bits, count)
        elif typed.kind in _FIELDS:
            field, kind = _FIELDS[typed.kind]
            array = np.array(getattr(tensor, field).values, kind)
        else:
            raise PackageError(f"a literal of type {typed.kind}, as no program of ours has")
        try:
            return np.asarray(array.reshape(typed.shape))
        except ValueError:
            raise PackageError(f"a literal of {array.size} values for shape {typed.shape}") from None

    def _file(self, name: str) -> Blobs:
        if name not in self._files:
            path = (self._folder / name.removeprefix(_WEIGHTS)).resolve()
            if not path.is_relative_to(self._folder.resolve()) or not path.is_file():
                raise PackageError(f"weights in {name!r:.200}, which is not in the package")
            self._files[name] = Blobs(path)
        return self._files[name]


def _single(texts: list[str]) -> str:
    if len(texts) != 1:
        raise PackageError(f"a list of {len(texts)} texts, as no program of ours has")
    return texts[0]


def _typed(name: str, kind: Any) -> Typed:
    if kind.WhichOneof("type") != "tensorType":
        raise PackageError(f"{name} is of {kind.WhichOneof('type')}, as none in a program of ours is")
    tensor = kind.tensorType
    return Typed(name, milproto().DataType.Name(tensor.dataType), _shape(name, tensor.dimensions))


def _shape(name: str, dimensions: Iterable[Any]) -> tuple[int, ...]:
    sizes = []
    for one in dimensions:
        if one.WhichOneof("dimension") != "constant":
            raise PackageError(f"{name} has a shape that is not fixed, as none in a program of ours has")
        sizes.append(int(one.constant.size))
    if math.prod(sizes) > _MAX_VALUES:
        raise PackageError(f"{name} has shape {tuple(sizes)}, more than {_MAX_VALUES} values")
    return tuple(sizes)


def _place(value: Any) -> str:
    """Something that is equal for equal literals: a place in the file, or a digest of the bytes."""
    if value.WhichOneof("value") == "blobFileValue":
        return f"{value.blobFileValue.fileName}:{value.blobFileValue.offset}"
    return hashlib.sha256(value.SerializeToString(deterministic=True)).hexdigest()
