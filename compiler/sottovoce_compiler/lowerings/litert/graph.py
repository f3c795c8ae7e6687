"""Builds a `.tflite` file: graphs of operators in a FlatBuffer, and the weights behind it in the same file.

Knows the file format and no model. The FlatBuffer is small; each weight lies at a multiple of 64 bytes after it, where
a device can map it, and is written once however many graphs read it. The format is that of the schema that ships with
ai-edge-litert; weights outside of the FlatBuffer are its `Buffer.offset` and `Buffer.size`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.litert.schema import schema

Array = NDArray[np.generic]
Float = NDArray[np.float32]
Shape = Sequence[int]  # -1: known when the graph runs

ALIGNMENT = 64  # bytes; a cache line, and more than any vector register asks for
_IDENTIFIER = b"TFL3"
_VERSION = 3
_TYPES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "int32": "INT32",
    "int64": "INT64",
    "int8": "INT8",
    "bool": "BOOL",
}


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix (rows, columns) as it is stored: bytes of 8- or 4-bit codes and what they are multiplied by.

    Without `block`, `scales` (rows,) float32 is one a row; with it, (rows, columns / block) float16, one a block.
    4-bit codes lie two a byte, the first in the low half.
    """

    codes: NDArray[np.int8] | NDArray[np.uint8]
    scales: Array
    columns: int
    bits: int = 8
    block: int | None = None


class WeightFile:
    """Weights on their way into a `.tflite`, in a file of their own until the graphs are known. Equal ones are kept
    once."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("w+b")
        self._known: dict[bytes, int] = {}
        self.places: list[tuple[int, int]] = []  # offset and bytes of each

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, array: Array) -> int:
        """The number of a weight."""
        data = np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")
        key = hashlib.sha256(data).digest()
        if key not in self._known:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            self._known[key] = len(self.places)
            self.places.append((self._file.tell(), len(data)))
            self._file.write(data)
        return self._known[key]

    def copy_to(self, file: Any) -> None:
        """All of them, as they lie here."""
        self._file.seek(0)
        while piece := self._file.read(1 << 20):
            file.write(piece)


@dataclass
class Model:
    """Graphs over one file of weights; each becomes a signature of its name."""

    weights: WeightFile
    graphs: list["Graph"] = field(default_factory=list)
    _codes: list[tuple[str, int]] = field(default_factory=list)

    def graph(self, name: str) -> "Graph":
        self.graphs.append(Graph(name, self))
        return self.graphs[-1]

    def operator(self, name: str, version: int) -> int:
        """The number that operators of this kind have in the file."""
        if (name, version) not in self._codes:
            self._codes.append((name, version))
        return self._codes.index((name, version))

    def write(self, path: Path, description: str) -> None:
        """The file `path`. Equal graphs and weights give equal bytes."""
        # An offset takes its 8 bytes whatever it is: a first round tells where the weights begin.
        first = len(self._flatbuffer(description, ALIGNMENT))
        start = first + -first % ALIGNMENT
        data = self._flatbuffer(description, start)
        with path.open("wb") as file:
            file.write(data)
            file.write(b"\0" * (start - len(data)))
            self.weights.copy_to(file)

    def _flatbuffer(self, description: str, start: int) -> bytes:
        tfl = schema()
        model = tfl.ModelT()
        model.version, model.description = _VERSION, description
        model.operatorCodes = [_operator_code(name, version) for name, version in self._codes]
        model.buffers = [tfl.BufferT()]  # the first is empty by definition: of tensors that are computed
        for offset, size in self.weights.places:
            buffer = tfl.BufferT()
            buffer.offset, buffer.size = start + offset, size
            model.buffers.append(buffer)
        model.subgraphs = [graph.subgraph() for graph in self.graphs]
        model.signatureDefs = [graph.signature(index) for index, graph in enumerate(self.graphs)]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())


class Graph:
    """One graph under construction. A tensor is known by its number."""

    def __init__(self, name: str, model: Model) -> None:
        self.name, self.model = name, model
        self.shapes: list[tuple[int, ...]] = []
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._inputs: dict[str, int] = {}
        self._outputs: dict[str, int] = {}
        self._constants: dict[tuple[int, str, tuple[int, ...]], int] = {}
        self.widened: dict[int, int] = {}  # tensors stored in half precision -> the same in float32

    # -- tensors ---------------------------------------------------------------------------------------------------

    def input(self, name: str, shape: Shape, dtype: str = "float32") -> int:
        """An argument of the graph; a dimension of -1 is set before it runs."""
        self._inputs[name] = self.tensor(name, shape, dtype)
        return self._inputs[name]

    def output(self, tensor: int, name: str) -> None:
        """`tensor` is a result, called `name`."""
        self._outputs[name] = tensor
        self._tensors[tensor].name = name

    def constant(self, value: Any, dtype: str = "float32") -> int:
        """A small array or a number."""
        return self.weight("constant", np.asarray(value, dtype))

    def weight(self, name: str, array: Array) -> int:
        """An array of the weight file; equal ones are one tensor."""
        dtype, number = str(array.dtype), self.model.weights.add(array)
        key = (number, dtype, array.shape)
        if key not in self._constants:
            self._constants[key] = self.tensor(name, array.shape, dtype, number + 1)
        return self._constants[key]

    def packed(self, name: str, matrix: Packed) -> int:
        """A quantized matrix, (rows, columns)."""
        number = self.model.weights.add(matrix.codes)
        key = (number, f"{name} {matrix.bits}", (len(matrix.scales), matrix.columns))
        if key not in self._constants:
            tensor = self.tensor(name, key[2], "int8", number + 1)
            self._tensors[tensor].type = getattr(schema().TensorType, "INT4" if matrix.bits == 4 else "INT8")
            self._tensors[tensor].quantization = self._quantization(name, matrix)
            self._constants[key] = tensor
        return self._constants[key]

    def tensor(self, name: str, shape: Shape, dtype: str = "float32", buffer: int = 0) -> int:
        """A tensor without anything that computes it."""
        tfl = schema()
        tensor = tfl.TensorT()
        tensor.name, tensor.buffer = name, buffer
        tensor.type = getattr(tfl.TensorType, _TYPES[dtype])
        tensor.shape = [max(one, 1) if one < 0 else one for one in shape]
        if any(one < 0 for one in shape):
            tensor.shapeSignature = list(shape)
        tensor.hasRank = True
        self._tensors.append(tensor)
        self.shapes.append(tuple(shape))
        return len(self._tensors) - 1

    def _quantization(self, name: str, matrix: Packed) -> Any:
        tfl = schema()
        found = tfl.QuantizationParametersT()
        if matrix.block is None:
            found.scale = np.asarray(matrix.scales, np.float32)
            found.zeroPoint = np.zeros(len(matrix.scales), np.int64)
            found.quantizedDimension = 0
            return found
        details = tfl.BlockwiseQuantizationT()
        details.scales = self.weight(f"{name}.scales", np.asarray(matrix.scales, np.float16))
        details.zeroPoints, details.blockSize = -1, matrix.block
        found.detailsType, found.details = tfl.QuantizationDetails.BlockwiseQuantization, details
        return found

    # -- operators -------------------------------------------------------------------------------------------------

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Shape,
        options: Any = None,
        *,
        dtype: str = "float32",
        version: int = 1,
    ) -> int:
        """The one result of an operator, of this shape."""
        (result,) = self.multi(kind, inputs, [shape], options, dtype=dtype, version=version)
        return result

    def multi(
        self,
        kind: str,
        inputs: Sequence[int],
        shapes: Sequence[Shape],
        options: Any = None,
        *,
        dtype: str = "float32",
        version: int = 1,
    ) -> list[int]:
        """The results of an operator; an absent input is -1, `options` an object of the schema."""
        tfl = schema()
        node = tfl.OperatorT()
        node.opcodeIndex = self.model.operator(kind, version)
        node.inputs = list(inputs)
        results = [self.tensor(f"{kind.lower()}_{len(self._tensors)}", shape, dtype) for shape in shapes]
        node.outputs = results
        if options is not None:
            node.builtinOptionsType = getattr(tfl.BuiltinOptions, type(options).__name__.removesuffix("T"))
            node.builtinOptions = options
        self._operators.append(node)
        return results

    # -- the file's parts --------------------------------------------------------------------------------------------

    def subgraph(self) -> Any:
        graph = schema().SubGraphT()
        graph.name, graph.tensors, graph.operators = self.name, self._tensors, self._operators
        graph.inputs, graph.outputs = list(self._inputs.values()), list(self._outputs.values())
        return graph

    def signature(self, index: int) -> Any:
        found = schema().SignatureDefT()
        found.signatureKey, found.subgraphIndex = self.name, index
        found.inputs, found.outputs = _named(self._inputs), _named(self._outputs)
        return found


def _named(tensors: Mapping[str, int]) -> list[Any]:
    found = []
    for name, number in tensors.items():
        entry = schema().TensorMapT()
        entry.name, entry.tensorIndex = name, number
        found.append(entry)
    return found


def _operator_code(name: str, version: int) -> Any:
    tfl = schema()
    code = tfl.OperatorCodeT()
    code.builtinCode, code.version = getattr(tfl.BuiltinOperator, name), version
    # What readers from before 2020 look at; codes that do not fit have a placeholder there.
    code.deprecatedBuiltinCode = min(code.builtinCode, tfl.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    return code
