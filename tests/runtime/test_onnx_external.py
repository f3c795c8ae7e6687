import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.bundle_case import make_bundle

from sottovoce.bundle import open_bundle
from sottovoce.errors import BundleError
from sottovoce.onnx_external import load_graph, relocate

onnx = pytest.importorskip("onnx")
helper, TensorProto = onnx.helper, onnx.TensorProto

WEIGHT = np.arange(32 * 8, dtype=np.float32).reshape(32, 8)
OFFSET = 4096
WEIGHTS = bytes(OFFSET) + WEIGHT.tobytes()
FOLDER_OPTION = "session.model_external_initializers_file_folder_path"


def external(name: str, dims: tuple[int, ...] = (32, 8), data_type: int = 1, **place: Any) -> Any:
    """A tensor that lies in weights.bin, with its place changed by `place`; "" leaves a key out."""
    tensor = TensorProto(name=name, data_type=data_type, dims=dims, data_location=TensorProto.EXTERNAL)
    whole = {"location": "weights.bin", "offset": str(OFFSET), "length": str(WEIGHT.nbytes)} | place
    for key, value in whole.items():
        if value:
            tensor.external_data.add(key=key, value=value)
    return tensor


def floats(name: str, *dims: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def model_of(nodes: list[Any], initializers: list[Any], inputs: list[Any] | None = None) -> Any:
    graph = helper.make_graph(nodes, "g", inputs or [floats("x", "n", 32)], [floats("y", "n", 8)], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def plain() -> Any:
    small = helper.make_tensor("bias", TensorProto.FLOAT, [8], [0.0] * 8)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "bias"], ["y"])]
    return model_of(nodes, [external("w"), small])


def with_branches() -> Any:
    branches = {}
    for name in ("then", "else"):
        node = helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"])
        out = [floats(f"{name}_y", "n", 8)]
        branches[f"{name}_branch"] = helper.make_graph([node], name, [], out, [external(f"{name}_w")])
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    return model_of([helper.make_node("If", ["c"], ["y"], **branches)], [condition])


def with_constant() -> Any:
    node = helper.make_node("Constant", [], ["w"], value=external(""))
    return model_of([node, helper.make_node("MatMul", ["x", "w"], ["y"])], [])


def location_of(name: str) -> tuple[str, int, int]:
    if name != "weights.bin":
        raise BundleError(f"has no file {name!r}")
    return "b ü.svb", 1 << 33, len(WEIGHTS)


def places(model: Any) -> list[dict[str, str]]:
    """The place of every external tensor, by onnx's own reading."""
    tensors = onnx.external_data_helper._get_all_tensors(model)
    found = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors]
    return [place for place in found if place]


@pytest.mark.parametrize(("make", "count"), [(plain, 1), (with_branches, 2), (with_constant, 1)])
def test_every_external_tensor_is_moved_and_nothing_else_changes(make: Callable[[], Any], count: int) -> None:
    model = make()
    moved = onnx.load_from_string(relocate(model.SerializeToString(), location_of))
    expected = {"location": "b ü.svb", "offset": str((1 << 33) + OFFSET), "length": str(WEIGHT.nbytes)}
    assert places(moved) == [expected] * count
    for tensor in onnx.external_data_helper._get_all_tensors(moved):
        for entry in tensor.external_data:
            entry.value = {"location": "weights.bin", "offset": str(OFFSET)}.get(entry.key, entry.value)
    assert moved == model


def test_tensors_of_functions_sparse_tensors_and_lists_are_moved_too() -> None:
    node = helper.make_node("Constant", [], ["w"], value=external("in function"))
    function = helper.make_function("d", "f", [], ["w"], [node], [helper.make_opsetid("", 21)])
    many = helper.make_node("Custom", ["x"], ["y"], domain="d")
    many.attribute.append(helper.make_attribute("all", [external("a"), external("b")]))
    model = model_of([many], [])
    model.functions.append(function)
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external("values"))
    sparse.indices.CopyFrom(external("indices", dims=(128,), data_type=TensorProto.INT64))
    moved = relocate(model.SerializeToString(), location_of)
    assert moved.count("b ü.svb".encode()) == 5 and b"weights.bin" not in moved


def test_a_model_without_external_weights_stays_as_it_is() -> None:
    small = helper.make_tensor("w", TensorProto.FLOAT, [32, 8], WEIGHT.ravel())
    data = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [small]).SerializeToString()
    assert relocate(data, location_of) == data


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"location": "/etc/passwd"}, "has no file"),
        ({"location": "../weights.bin"}, "has no file"),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, "has no file"),  # onnxruntime's mark for an address in memory
        ({"location": ""}, "lacks its file"),
        ({"length": ""}, "lacks its file or length"),
        ({"length": "1023"}, "1023 bytes, its shape and type need 1024"),
        ({"offset": "4100"}, "ends at 5124, its file has 5120"),
        ({"offset": "-1"}, "'-1'"),
        ({"offset": "9" * 30}, "9999"),
        ({"offset": "٣"}, "offset or length"),
        ({"prepacked_0": "x"}, "unknown place"),
    ],
)
def test_a_place_outside_the_bundle_or_at_odds_with_the_tensor_is_refused(place: dict[str, Any], message: str) -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [external("the location", **place)])
    with pytest.raises(BundleError, match=message.replace("*", r"\*")):
        relocate(model.SerializeToString(), location_of)


@pytest.mark.parametrize(
    ("dims", "data_type", "length"),
    [
        ((1 << 40, 1 << 40), 1, WEIGHT.nbytes),
        ((-1, 0), 1, 0),
        ((32, 8), TensorProto.STRING, WEIGHT.nbytes),
        ((32, 8), 99, WEIGHT.nbytes),
        ((32, 9), 1, WEIGHT.nbytes),
    ],
)
def test_an_absurd_shape_or_type_is_refused(dims: tuple[int, ...], data_type: int, length: int) -> None:
    tensor = external("w", dims, data_type, length=str(length))
    with pytest.raises(BundleError, match="'w' has"):
        relocate(model_of([], [tensor]).SerializeToString(), location_of)


@pytest.mark.parametrize(
    ("data_type", "length"),
    [
        (TensorProto.INT4, 128),
        (TensorProto.INT8, 256),
        (TensorProto.FLOAT16, 512),
        (TensorProto.DOUBLE, 2048),
    ],
)
def test_elements_of_every_width_are_measured_in_bits(data_type: int, length: int) -> None:
    tensor = external("w", (32, 8), data_type, offset="0", length=str(length))
    assert relocate(model_of([], [tensor]).SerializeToString(), location_of)


def test_the_width_of_every_type_is_that_of_onnx() -> None:
    unused = {
        TensorProto.UNDEFINED,
        TensorProto.STRING,
        27,
        28,
    }  # the last two have six bits, and no engine yet
    for data_type in set(TensorProto.DataType.values()) - unused:
        bits = onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize * 8
        name = TensorProto.DataType.Name(data_type)
        packed = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}.get(name, bits)
        tensor = external("w", (64,), data_type, length=str(8 * packed))
        assert relocate(model_of([], [tensor]).SerializeToString(), location_of), name


def test_a_tensor_given_in_two_parts_which_a_parser_would_merge_is_refused() -> None:
    inner = onnx.AttributeProto(name="value", type=4, t=external("")).SerializeToString()
    second = onnx.AttributeProto(t=TensorProto(dims=[7])).SerializeToString()
    node = onnx.NodeProto(op_type="Constant", output=["w"]).SerializeToString() + _field(5, inner + second)
    data = _field(7, _field(1, node))
    assert len(onnx.load_from_string(data).graph.node[0].attribute[0].t.dims) == 3
    with pytest.raises(BundleError, match="twice"):
        relocate(data, location_of)


def test_a_graph_given_in_two_parts_and_a_model_without_one_are_refused() -> None:
    data = plain().SerializeToString()
    with pytest.raises(BundleError, match="twice"):
        relocate(data + data, location_of)
    for empty in (b"", b"\x08\x0a"):
        with pytest.raises(BundleError, match="no graph"):
            relocate(empty, location_of)


def test_onnxruntimes_own_format_is_refused() -> None:
    with pytest.raises(BundleError, match="ORT format"):
        relocate(b"\x20\0\0\0ORTM" + bytes(100), location_of)


def test_data_both_within_and_without_the_graph_is_refused() -> None:
    tensor = external("w")
    tensor.raw_data = WEIGHT.tobytes()
    with pytest.raises(BundleError, match="both here and elsewhere"):
        relocate(model_of([], [tensor]).SerializeToString(), location_of)


def test_a_place_that_the_tensor_does_not_own_up_to_is_refused() -> None:
    tensor = external("w")
    tensor.data_location = TensorProto.DEFAULT
    with pytest.raises(BundleError, match="neither"):
        relocate(model_of([], [tensor]).SerializeToString(), location_of)


def test_graphs_nested_without_end_are_refused() -> None:
    data = b"location"
    for _ in range(100):  # graph -> node -> attribute -> graph
        data = _field(1, _field(5, _field(6, data)))
    with pytest.raises(BundleError, match="nested"):
        relocate(_field(7, data), location_of)


def test_a_model_cut_short_anywhere_is_refused() -> None:
    data = plain().SerializeToString()
    for length in range(len(data) - 30):
        with pytest.raises(BundleError):
            relocate(data[:length], location_of)


@settings(max_examples=300)
@given(st.data())
def test_only_bundle_errors_come_out_of_a_damaged_model(data: st.DataObject) -> None:
    model = bytearray(with_branches().SerializeToString())
    for _ in range(data.draw(st.integers(1, 5))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    try:
        relocate(bytes(model), location_of)
    except BundleError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["plain.svb", "with spaces.svb", "näm 声音.svb", "folder", "folder ü 声"])
@pytest.mark.parametrize("make", [plain, with_branches, with_constant])
def test_onnxruntime_maps_the_weights_from_the_bundle_where_it_lies(
    name: str, make: Callable[[], Any], tmp_path: Path
) -> None:
    ort = pytest.importorskip("onnxruntime")
    place = tmp_path / "a folder é"
    place.mkdir()
    files = {"weights.bin": WEIGHTS, "model.onnx": make().SerializeToString()}
    graph = load_graph(open_bundle(make_bundle(place / name, files)), "model.onnx")
    options = ort.SessionOptions()
    options.add_session_config_entry(FOLDER_OPTION, str(graph.folder))
    session = ort.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": np.ones((1, 32), np.float32)})
    np.testing.assert_allclose(result, WEIGHT.sum(0, keepdims=True))


def test_a_graph_that_names_no_file_of_its_bundle_is_refused_by_name(tmp_path: Path) -> None:
    model = model_of([], [external("w", location="other.bin")]).SerializeToString()
    bundle = open_bundle(make_bundle(tmp_path / "x.svb", {"weights.bin": WEIGHTS, "model.onnx": model}))
    with pytest.raises(BundleError, match=r"x\.svb: model\.onnx: .*'other\.bin', which is no file"):
        load_graph(bundle, "model.onnx")
    with pytest.raises(BundleError, match=r"has no file 'none.onnx'"):
        load_graph(bundle, "none.onnx")


@pytest.mark.parametrize("name", [b"bad\xff.svb", b"bad\xff"])
def test_a_path_that_is_no_unicode_is_refused_by_name(name: bytes, tmp_path: Path) -> None:
    files = {"weights.bin": WEIGHTS, "model.onnx": plain().SerializeToString()}
    bundle = open_bundle(make_bundle(tmp_path / os.fsdecode(name), files))
    with pytest.raises(BundleError, match="not valid Unicode; rename it"):
        load_graph(bundle, "model.onnx")


def _field(number: int, value: bytes) -> bytes:
    size = bytearray()
    left = len(value)
    while left > 0x7F:
        size.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([number << 3 | 2, *size, left]) + value
