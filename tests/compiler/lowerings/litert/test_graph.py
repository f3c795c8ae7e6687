"""The file that is written: where weights lie, what is kept once, that equal models give equal bytes."""

from pathlib import Path

import numpy as np
import pytest

from sottovoce.errors import MissingExtraError
from sottovoce_compiler.lowerings.litert.graph import ALIGNMENT, Graph, Model, WeightFile
from sottovoce_compiler.lowerings.litert.layers import binary, linear
from sottovoce_compiler.lowerings.litert.schema import schema

from .run_case import run, write

WEIGHT = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def twice(g: Graph) -> None:
    x = g.input("x", (-1, 3))
    g.output(binary(g, "ADD", linear(g, x, "first", WEIGHT), linear(g, x, "second", WEIGHT.copy())), "y")


def model_of(file: Path) -> object:
    return schema().ModelT.InitFromObj(schema().Model.GetRootAs(file.read_bytes(), 0))


def test_weights_lie_behind_the_flatbuffer_where_they_can_be_mapped_and_equal_ones_once(tmp_path: Path) -> None:
    file = write(tmp_path, twice)
    data, model = file.read_bytes(), model_of(file)
    found = [(one.offset, one.size) for one in model.buffers[1:]]  # type: ignore[attr-defined]
    assert all(offset % ALIGNMENT == 0 for offset, _ in found)
    kept = [offset for offset, size in found if data[offset : offset + size] == WEIGHT.tobytes()]
    assert len(kept) == 1 and data.count(WEIGHT.tobytes()) == 1
    assert sum(size for _, size in found) < len(data) and not (tmp_path / "weights").exists()
    x = np.eye(3, dtype=np.float32)
    np.testing.assert_allclose(run(file, {"x": x})["y"], 2 * WEIGHT.T, rtol=1e-6)


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert write(tmp_path, twice).read_bytes() == write(tmp_path / "other", twice).read_bytes()


def test_graphs_are_signatures_by_their_names_over_the_same_weights(tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    with WeightFile(tmp_path / "weights") as weights:
        model = Model(weights)
        for name in ("one", "two"):
            twice(model.graph(name))
        model.write(tmp_path / "g.tflite", "two graphs")
    graph = Interpreter(model_path=str(tmp_path / "g.tflite"))
    listed = {name: (list(one["inputs"]), list(one["outputs"])) for name, one in graph.get_signature_list().items()}
    assert listed == {"one": (["x"], ["y"]), "two": (["x"], ["y"])}
    found = graph.get_signature_runner("two")(x=np.ones((2, 3), np.float32))["y"]
    np.testing.assert_allclose(found, np.tile(2 * WEIGHT.sum(axis=1), (2, 1)), rtol=1e-5)
    assert (tmp_path / "g.tflite").read_bytes().count(WEIGHT.tobytes()) == 1


def test_without_the_extra_the_command_that_adds_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("sottovoce_compiler.lowerings.litert.schema.import_module", missing)
    schema.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match=r"pip install 'sottovoce-compiler\[litert\]'"):
            schema()
    finally:
        schema.cache_clear()
