"""What opens a graph: which package, what a wrong file says, what becomes of sizes."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from bundle_case import make_bundle

from sottovoce.bundle import open_bundle
from sottovoce.engines.litert_model import LiteRtModel, find_package, hidden_new, hidden_past
from sottovoce.errors import BundleError, EngineError, MissingExtraError
from sottovoce_compiler.lowerings.litert.graph import Model, WeightFile
from sottovoce_compiler.lowerings.litert.layers import binary

INPUTS, RESULTS = {"x": (-1, 2)}, {"y": (-1, 2)}


def doubled(folder: Path) -> bytes:
    """A graph whose result is twice its input."""
    with WeightFile(folder / "weights") as weights:
        model = Model(weights)
        g = model.graph("double")
        x = g.input("x", (-1, 2))
        g.output(binary(g, "ADD", x, x), "y")
        model.write(folder / "double.tflite", "double")
    return (folder / "double.tflite").read_bytes()


def opened(folder: Path, data: bytes) -> LiteRtModel:
    bundle = make_bundle(folder / "b.svb", {"double.tflite": data})
    return LiteRtModel(open_bundle(bundle), "double.tflite", 1, INPUTS, RESULTS)


def test_inputs_stay_until_a_size_changes(tmp_path: Path) -> None:
    graph = opened(tmp_path, doubled(tmp_path))
    assert graph.resize({"x": (3, 2)}) and not graph.resize({"x": (3, 2)})
    graph.put("x", np.arange(6, dtype=np.float32).reshape(3, 2))
    graph.put_at("x", (slice(0, 1),), np.array([[7, 8]], np.float32))
    for _ in range(2):
        graph.run()
        np.testing.assert_array_equal(graph.result("y"), [[14, 16], [4, 6], [8, 10]])
    np.testing.assert_array_equal(graph.part("x", (slice(1, 2), 1)), [3])
    assert graph.differs({"x": (4, 2)}) and graph.resize({"x": (4, 2)})
    graph.put("x", 1)
    graph.run()
    assert graph.result("y").tolist() == [[2, 2]] * 4


def test_sizes_that_the_graph_does_not_take_are_an_engine_error_and_others_can_follow(tmp_path: Path) -> None:
    with WeightFile(tmp_path / "weights") as weights:
        model = Model(weights)
        g = model.graph("sum")
        g.output(binary(g, "ADD", g.input("a", (-1, 2)), g.input("b", (-1, 2))), "y")
        model.write(tmp_path / "sum.tflite", "sum")
    bundle = open_bundle(make_bundle(tmp_path / "b.svb", {"sum.tflite": (tmp_path / "sum.tflite").read_bytes()}))
    graph = LiteRtModel(bundle, "sum.tflite", 1, {"a": (-1, 2), "b": (-1, 2)}, RESULTS)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"LiteRT: sum\.tflite"):
            graph.resize({"a": (3, 2), "b": (4, 2)})
    assert graph.resize({"a": (4, 2), "b": (4, 2)})
    for name in ("a", "b"):
        graph.put(name, 2)
    graph.run()
    assert graph.result("y").tolist() == [[4, 4]] * 4


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"not a graph" * 9, lambda data: data[:40], lambda data: data[:4] + data[8:]],
    ids=["empty", "something else", "cut short", "shifted"],
)
def test_what_is_no_graph_is_an_error(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    with pytest.raises((EngineError, BundleError), match=r"double\.tflite"):
        opened(tmp_path, damage(doubled(tmp_path)))


@pytest.mark.parametrize(
    ("inputs", "results"),
    [
        ({"x": (-1, 3)}, RESULTS),
        ({"z": (-1, 2)}, RESULTS),
        ({**INPUTS, "z": (1,)}, RESULTS),
        (INPUTS, {}),
        (INPUTS, {"y": (2, 2)}),
    ],
)
def test_a_graph_of_other_inputs_or_results_is_refused(
    tmp_path: Path, inputs: dict[str, tuple[int, ...]], results: dict[str, tuple[int, ...]]
) -> None:
    bundle = make_bundle(tmp_path / "b.svb", {"double.tflite": doubled(tmp_path)})
    with pytest.raises(BundleError, match=r"double\.tflite"):
        LiteRtModel(open_bundle(bundle), "double.tflite", 1, inputs, results)


def test_a_file_that_memory_has_no_room_for_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce.engines.litert_model.available_bytes", lambda: 10)
    with pytest.raises(EngineError, match="unpack the bundle to a folder"):
        opened(tmp_path, doubled(tmp_path))


def test_the_notice_of_the_fast_kernels_is_left_out_and_other_words_are_not(tmp_path: Path) -> None:
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from sottovoce.bundle import open_bundle
from sottovoce.engines import litert_model
graph = litert_model.LiteRtModel(open_bundle({str(tmp_path / "b.svb")!r}), "double.tflite", 1, {INPUTS}, {RESULTS})
with litert_model._without_notice():
    os.write(2, b"INFO: fast\\nsomething is wrong\\n")
graph.resize({{"x": (3, 2)}})
os.close(2)
graph.resize({{"x": (4, 2)}})
graph.run()
"""
    opened(tmp_path, doubled(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "something is wrong\n")


def versions(monkeypatch: pytest.MonkeyPatch, **installed: str) -> None:
    def version(name: str) -> str:
        try:
            return installed[name.replace("-", "_")]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr("sottovoce.engines.litert_model.metadata.version", version)


def test_the_maintained_package_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, ai_edge_litert="2.3.0", tflite_runtime="2.14.0")
    assert (find_package().module, find_package().maintained) == ("ai_edge_litert", True)
    versions(monkeypatch, tflite_runtime="2.14.0")
    assert (find_package().module, find_package().maintained) == ("tflite_runtime", False)


def test_without_any_the_command_that_adds_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    versions(monkeypatch)
    with pytest.raises(MissingExtraError, match=r"pip install 'sottovoce\[litert\]'"):
        find_package()
    engine = {"name": "litert", "min_version": "2.1", "max_version": "3", "cpu_features": []}
    bundle = open_bundle(make_bundle(tmp_path / "b.svb", engine=engine))
    with pytest.raises(BundleError, match=r"needs litert, .*: pip install 'sottovoce\[litert\]'"):
        bundle.check_runtime()
    versions(monkeypatch, ai_edge_litert="1.0.1")
    with pytest.raises(BundleError, match=r"installed is 1\.0\.1: pip install 'ai-edge-litert>=2\.1,<3'"):
        bundle.check_runtime()
    versions(monkeypatch, ai_edge_litert="2.3.0")
    assert bundle.check_runtime() == []


def test_biases_hide_other_rows_and_what_is_to_come() -> None:
    seen = hidden_past([1, 3], capacity=4, tokens=2)[0, 0] == 0
    assert seen.tolist() == [
        *[[True, False, False, False, False, False, False, False]] * 2,
        *[[False, False, False, False, True, True, True, False]] * 2,
    ]
    assert (hidden_past([2], capacity=3, tokens=5)[0, 0] == 0).tolist() == [[True, True, False]]
    assert (hidden_new(2, 2)[0, 0] == 0).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]
