"""One graph, made and run."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.litert.graph import Graph, Model, WeightFile

Values = Mapping[str, NDArray[np.generic]]


def write(folder: Path, build: Callable[[Graph], None]) -> Path:
    """The file of a graph that `build` fills."""
    with WeightFile(folder / "weights") as weights:
        model = Model(weights)
        build(model.graph("g"))
        model.write(folder / "g.tflite", "a test")
    return folder / "g.tflite"


def run(file: Path, inputs: Values) -> dict[str, NDArray[np.generic]]:
    """Its results for `inputs`, which may be of any size."""
    from ai_edge_litert.interpreter import Interpreter

    graph = Interpreter(model_path=str(file), num_threads=1)
    places = {detail["name"]: detail["index"] for detail in graph.get_input_details()}
    for name, value in inputs.items():
        graph.resize_tensor_input(places[name], value.shape)
    graph.allocate_tensors()
    for name, value in inputs.items():
        graph.set_tensor(places[name], value)
    graph.invoke()
    return {detail["name"]: graph.get_tensor(detail["index"]) for detail in graph.get_output_details()}
