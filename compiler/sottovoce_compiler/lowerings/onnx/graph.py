"""A thin builder of ONNX graphs whose weights live in one shared external file.

Knows the ONNX protobuf and alignment; knows nothing of models or quantization. Several graphs may share one
`WeightFile`: equal arrays are stored once, however many graphs or names refer to them (the tied embedding, above all).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array = NDArray[Any]

OPSET = 21
MICROSOFT = "com.microsoft"
WEIGHTS_NAME = "weights.bin"
ALIGNMENT = 64  # bytes; a cache line, and what vector loads want
_INLINE_BYTES = 256  # arrays up to this size stay in the graph, where constant folding can see them


@dataclass(frozen=True, slots=True)
class Extent:
    """Where an array lies in the weight file, in bytes."""

    offset: int
    length: int


class WeightFile:
    """An append-only file of arrays, each stored once and aligned; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._extents: dict[tuple[bytes, int], Extent] = {}

    def add(self, array: Array) -> Extent:
        """Store the bytes of `array` in C order, unless the same bytes are there already."""
        data = np.ascontiguousarray(array)
        view = data.reshape(-1).view(np.uint8).data
        key = (hashlib.sha256(view).digest(), data.nbytes)
        if key not in self._extents:
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            self._extents[key] = Extent(self._file.tell(), data.nbytes)
            self._file.write(view)
        return self._extents[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


@dataclass
class Graph:
    """Collects nodes in topological order; every method returns the name of the value it made."""

    name: str
    weights: WeightFile
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _constants: dict[tuple[str, bytes, tuple[int, ...]], str] = field(default_factory=dict)
    _count: int = 0

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input; a string in `shape` is a dimension known only when the graph runs."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Give `value` the public name `name`."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"out/{name}"))
        self.declare_output(name, dtype, shape)

    def declare_output(self, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Make a value that a node already calls `name` an output of the graph."""
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, domain: str = "", out: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; an empty input name stands for an optional input left out."""
        return self.multi(kind, *inputs, domain=domain, outs=[out or self._fresh(kind)], **attributes)[0]

    def multi(
        self, kind: str, *inputs: str, outs: Sequence[str] | int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs, named or counted."""
        names = [self._fresh(kind) for _ in range(outs)] if isinstance(outs, int) else list(outs)
        label = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, names, name=label, domain=domain, **attributes))
        return names

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """A small constant kept inside the graph; equal constants share one name."""
        array = np.asarray(value, dtype=dtype)
        if array.nbytes > _INLINE_BYTES:
            raise ValueError(f"constant of {array.nbytes} bytes: use weight()")
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            name = f"const_{len(self._constants)}"
            self.initializers.append(onnx.numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def weight(self, name: str, array: Array) -> str:
        """A named initializer in the weight file; its shape and dtype are those of `array`."""
        extent = self.weights.add(array)
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        tensor.dims.extend(array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": WEIGHTS_NAME, "offset": str(extent.offset), "length": str(extent.length)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        self.initializers.append(tensor)
        return name

    def serialize(self, metadata: Mapping[str, str]) -> bytes:
        """The finished model as bytes, the same for the same graph and version of onnx."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="sottovoce", ir_version=10)
        helper.set_model_props(model, dict(metadata))
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}_{self._count}"
