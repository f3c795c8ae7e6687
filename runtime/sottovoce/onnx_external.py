"""Points the weights of an ONNX graph at the place in a bundle where they lie, so that an engine maps them
from there.

A graph keeps its weights in another file through ONNX's external data: each tensor names a file, an offset
and a length. In a bundle that file may be a member of a zip. `relocate` copies the serialized model, with
file and offset of every tensor replaced, wherever tensors may stand: initializers, attributes, the graphs of
If and Loop, functions.

It is also the guard at that door, since an engine follows whatever the graph names. Nothing but a file of the
bundle is accepted, no range beyond its end, and no length other than what the tensor's shape and type need.
Message and field numbers: onnx.proto of ONNX 1.20 (github.com/onnx/onnx). Wire format: protobuf.dev,
"Encoding". Knows as much of protobuf as that takes, and nothing of operators or engines."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sottovoce.bundle import Bundle
from sottovoce.errors import BundleError

MAX_MODEL_BYTES = (1 << 31) - 1  # protobuf's own limit for one message
MAX_DEPTH = 64  # messages within messages; a graph in a graph takes three
MAX_ELEMENTS = 1 << 48
MAX_SHOWN = 100  # characters of a name in an error

# The fields that lead to a tensor: message -> field number -> message.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
# Those that may stand only once: a parser merges a second one into the first, past any check made on either.
_ONCE: dict[str, frozenset[int]] = {
    "model": frozenset({7}),
    "attribute": frozenset({5, 6, 22}),
    "sparse tensor": frozenset({1, 2}),
    "training": frozenset({1, 2}),
    "tensor": frozenset({2, 8, 14}),
}
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14
_STORED_DATA = frozenset({4, 5, 6, 7, 9, 10, 11})  # float_data ... raw_data: values within the graph itself
_TYPES_BY_BITS = {  # bits an element takes -> TensorProto.DataType; text (8) has no fixed length
    2: (25, 26),
    4: (21, 22, 23),
    8: (2, 3, 9, 17, 18, 19, 20, 24),
    16: (4, 5, 10, 16),
    32: (1, 6, 12),
    64: (7, 11, 13, 14),
    128: (15,),
}
_ELEMENT_BITS = {data_type: bits for bits, types in _TYPES_BY_BITS.items() for data_type in types}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Locate = Callable[[str], tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Graph:
    """A serialized ONNX model whose weights lie in files of `folder`."""

    model: bytes
    folder: Path


def load_graph(bundle: Bundle, name: str) -> Graph:
    """The ONNX graph `name` of the bundle, checked, with its weights pointing into the bundle where it lies
    on disk.

    Raises BundleError when the graph is damaged or names anything outside the bundle.
    """
    folder, model = bundle.folder, bundle.read(name)

    def location_of(file: str) -> tuple[str, int, int]:
        if file not in bundle.manifest.files:
            raise _bad(f"it names {file[:MAX_SHOWN]!r}, which is no file of the bundle")
        found = bundle.locate(file)
        return found.path.relative_to(folder).as_posix(), found.offset, found.size

    try:
        str(folder).encode()  # an engine takes the folder as UTF-8, as it does the file's name
        return Graph(relocate(model, location_of), folder)
    except UnicodeEncodeError:
        raise BundleError(f"{str(bundle.path)!r}: this path is not valid Unicode; rename it") from None
    except BundleError as error:
        raise BundleError(f"{bundle.path}: {name}: {error}") from None


def relocate(model: bytes, location_of: Locate) -> bytes:
    """`model`, a serialized ModelProto, with every external tensor moved to where its file now lies.

    `location_of(file)` answers with the new file name, the offset in it at which the old file begins, and the
    old file's size, both in bytes; it raises BundleError for a file that is not the bundle's. Raises
    BundleError also for damaged protobuf, a range beyond the file, and a length that does not fit the tensor.
    """
    if len(model) > MAX_MODEL_BYTES:
        raise _bad(f"{len(model)} bytes, more than the {MAX_MODEL_BYTES} a graph may have")
    if model[4:8] == b"ORTM":  # an engine would take this for its own format and follow it unchecked
        raise _bad("an ORT format model, expected ONNX")
    if not any(number == 7 for number, *_ in _fields(model)):
        raise _bad("there is no graph in it")
    return _rewrite(model, "model", location_of, 0)


def _rewrite(data: bytes, message: str, location_of: Locate, depth: int) -> bytes:
    """The message with every tensor below it moved; the bytes of all else stay as they are."""
    if depth > MAX_DEPTH:
        raise _bad(f"nested more than {MAX_DEPTH} deep")
    if message == "tensor":
        return _move_tensor(data, location_of)
    out, seen, kept = [], set[int](), 0
    for number, wire, start, value_start, end in _fields(data):
        child = _CHILDREN[message].get(number)
        if child is None:
            continue
        if wire != _BYTES:
            raise _bad(f"field {number} of a {message} is no message")
        if number in seen and number in _ONCE.get(message, ()):
            raise _bad(f"a {message} has field {number} twice")
        seen.add(number)
        value = data[value_start:end]
        if b"location" not in value:  # the key that every external tensor spells out: nothing to move
            continue
        new = _rewrite(value, child, location_of, depth + 1)
        out += [data[kept:start], _field(number, new)]
        kept = end
    return b"".join([*out, data[kept:]])


def _move_tensor(data: bytes, location_of: Locate) -> bytes:
    tensor = _read_tensor(data)
    if not tensor.external and not tensor.entries:
        return data
    _expect(tensor.external and bool(tensor.entries), f"{tensor.name!r} is neither stored here nor elsewhere")
    _expect(not tensor.stored, f"{tensor.name!r} is stored both here and elsewhere")
    entries = dict(tensor.entries)
    _expect(len(entries) == len(tensor.entries), f"{tensor.name!r} names its place twice")
    _expect(
        entries.keys() <= {"location", "offset", "length", "checksum"},
        f"{tensor.name!r} has an unknown place",
    )
    _expect({"location", "length"} <= entries.keys(), f"{tensor.name!r} lacks its file or length")
    offset, length = _number(entries.get("offset", "0"), tensor.name), _number(entries["length"], tensor.name)
    location, base, size = location_of(entries["location"])
    _expect(offset + length <= size, f"{tensor.name!r} ends at {offset + length}, its file has {size} bytes")
    needed = tensor.length()
    _expect(length == needed, f"{tensor.name!r} has {length} bytes, its shape and type need {needed}")
    moved = {"location": location, "offset": str(base + offset), "length": str(length)}
    return tensor.rest + b"".join(_entry(key, value) for key, value in moved.items())


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What of a TensorProto matters here; `rest` is all of it but the external data's entries."""

    name: str
    dims: tuple[int, ...]
    data_type: int
    external: bool
    stored: bool
    entries: tuple[tuple[str, str], ...]
    rest: bytes

    def length(self) -> int:
        """Bytes that the shape and type need, packed elements rounded up to a whole byte."""
        _expect(
            self.data_type in _ELEMENT_BITS,
            f"{self.name!r} has type {self.data_type}, which cannot lie elsewhere",
        )
        elements = 1
        for dim in self.dims:
            elements *= dim
            _expect(max(dim, elements) <= MAX_ELEMENTS, f"{self.name!r} has more than {MAX_ELEMENTS} elements")
        return -(-elements * _ELEMENT_BITS[self.data_type] // 8)


def _read_tensor(data: bytes) -> _Tensor:
    dims: list[int] = []
    entries: list[tuple[str, str]] = []
    scalars: dict[int, int] = {}
    rest, name, stored, seen = [], "", False, set[int]()
    for number, wire, start, value_start, end in _fields(data):
        _expect(number not in seen or number not in _ONCE["tensor"], f"a tensor has field {number} twice")
        seen.add(number)
        stored = stored or number in _STORED_DATA
        if number == _EXTERNAL_DATA:
            _expect(wire == _BYTES, "a tensor's place is no message")
            entries.append(_read_entry(data[value_start:end]))
            continue
        rest.append(data[start:end])
        if number == _DIMS:
            _expect(wire in (_VARINT, _BYTES), "a tensor's shape is not made of numbers")
            dims += _varints(data, value_start, end)
        elif number in (_DATA_TYPE, _DATA_LOCATION):
            _expect(wire == _VARINT, f"field {number} of a tensor is no number")
            scalars[number] = _varint(data, value_start, end)[0]
        elif number == _NAME:
            name = _text(data[value_start:end])[:MAX_SHOWN]
    external = scalars.get(_DATA_LOCATION, 0)
    _expect(external in (0, 1), f"{name!r} is stored in an unknown way ({external})")
    return _Tensor(name, tuple(dims), scalars.get(_DATA_TYPE, 0), external == 1, stored, tuple(entries), b"".join(rest))


def _read_entry(data: bytes) -> tuple[str, str]:
    """A StringStringEntryProto: key (1) and value (2), each exactly once."""
    fields = [(number, data[start:end]) for number, wire, _, start, end in _fields(data) if wire == _BYTES]
    _expect(sorted(number for number, _ in fields) == [1, 2], "a tensor's place is not a key and a value")
    found = dict(fields)
    return _text(found[1]), _text(found[2])


def _entry(key: str, value: str) -> bytes:
    return _field(_EXTERNAL_DATA, _field(1, key.encode()) + _field(2, value.encode()))


def _field(number: int, value: bytes) -> bytes:
    return _encode(number << 3 | _BYTES) + _encode(len(value)) + value


def _fields(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Each field's number, wire type, start, and where its value begins and ends; groups, long dead, are
    refused."""
    at, size = 0, len(data)
    while at < size:
        start = at
        tag, at = _varint(data, at, size)
        number, wire = tag >> 3, tag & 7
        value_start = at
        if wire == _VARINT:
            _, at = _varint(data, at, size)
        elif wire == _BYTES:
            length, value_start = _varint(data, at, size)
            at = value_start + length
        elif wire in (_FIXED32, _FIXED64):
            at += 4 if wire == _FIXED32 else 8
        else:
            raise _bad(f"wire type {wire} at byte {start}")
        if not 0 < number < 1 << 29 or at > size:
            raise _bad(f"field {number} at byte {start} does not fit")
        yield number, wire, start, value_start, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The unsigned number at `at` and where it ends; at most ten bytes and 64 bits."""
    if at < end and data[at] < 0x80:  # nearly all of them
        return data[at], at + 1
    value = 0
    for index, byte in enumerate(data[at : min(at + 10, end)]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            _expect(value < 1 << 64, "a number has more than 64 bits")
            return value, at + index + 1
    raise _bad("a number is cut short, or has more than ten bytes")


def _varints(data: bytes, at: int, end: int) -> Iterator[int]:
    """One number, or the several of a packed field."""
    while at < end:
        value, at = _varint(data, at, end)
        yield value


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(text: str, name: str) -> int:
    _expect(len(text) <= 19 and text.isascii() and text.isdigit(), f"{name!r} has offset or length {text[:30]!r}")
    return int(text)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("text in it is not UTF-8") from None


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _bad(otherwise)


def _bad(what: str) -> BundleError:
    return BundleError(f"not a graph that can be loaded: {what}")
