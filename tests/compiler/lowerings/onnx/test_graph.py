from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from sottovoce_compiler.lowerings.onnx.graph import ALIGNMENT, Graph, WeightFile


def test_equal_arrays_are_stored_once_and_every_one_is_aligned(tmp_path: Path) -> None:
    first, second = np.arange(7, dtype=np.float32), np.arange(9, dtype=np.int8)
    with WeightFile(tmp_path / "w") as weights:
        extents = [weights.add(first), weights.add(second), weights.add(first.copy()), weights.add(first.reshape(1, 7))]
    assert extents[0] == extents[2] == extents[3] != extents[1]
    assert all(extent.offset % ALIGNMENT == 0 for extent in extents)
    data = (tmp_path / "w").read_bytes()
    assert data[extents[1].offset :][: extents[1].length] == second.tobytes()
    assert len(data) == extents[1].offset + 9


def test_a_view_that_is_not_contiguous_is_stored_in_c_order(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    with WeightFile(tmp_path / "w") as weights:
        weights.add(array.T)
    assert (tmp_path / "w").read_bytes() == np.ascontiguousarray(array.T).tobytes()


def test_two_graphs_share_a_weight_under_two_names(tmp_path: Path) -> None:
    with WeightFile(tmp_path / "w") as weights:
        graphs = [Graph(name, weights) for name in ("a", "b")]
        for g in graphs:
            x = g.input("x", TensorProto.FLOAT, [100])
            g.output(g.op("Add", x, g.weight(f"{g.name}.w", np.ones(100, np.float32))), "y", TensorProto.FLOAT, [100])
        models = [onnx.load_from_string(g.serialize({})) for g in graphs]
    places = [{entry.key: entry.value for entry in m.graph.initializer[0].external_data} for m in models]
    assert places[0] == places[1] == {"location": "weights.bin", "offset": "0", "length": "400"}
    assert (tmp_path / "w").stat().st_size == 400


def test_equal_constants_share_a_name_and_large_ones_are_sent_to_the_weights(tmp_path: Path) -> None:
    with WeightFile(tmp_path / "w") as weights:
        g = Graph("g", weights)
        assert g.constant([1, 2]) == g.constant([1, 2])
        assert len({g.constant([1]), g.constant(1), g.constant([1], np.int32), g.constant([[1]])}) == 4
        with pytest.raises(ValueError, match="constant of 264 bytes: use weight"):
            g.constant(range(33))


def test_the_bytes_are_those_of_the_graph_and_carry_the_metadata(tmp_path: Path) -> None:
    def build(name: str) -> bytes:
        with WeightFile(tmp_path / name) as weights:
            g = Graph("g", weights)
            a, b = g.multi("Split", g.input("x", TensorProto.FLOAT, [4]), outs=2, axis=0, num_outputs=2)
            g.output(g.op("Sub", a, b), "y", TensorProto.FLOAT, [2])
            return g.serialize({"b": "2", "a": "1"})

    assert build("one") == build("two")
    model = onnx.load_from_string(build("three"))
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props} == {"a": "1", "b": "2"}
    assert model.producer_version == "" and str(tmp_path) not in str(model)
