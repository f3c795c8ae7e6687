"""Places in a graph where a LoRA adapter enters while it runs: two more inputs beside each matrix.

Knows how a matrix is emitted with room for an adapter. Does not know adapters, nor which graph has such room.
"""

from dataclasses import dataclass

from onnx import TensorProto

from sottovoce_compiler.lowerings.onnx.graph import Graph
from sottovoce_compiler.lowerings.onnx.linear import Float, Linear
from sottovoce_compiler.lowerings.onnx.recipe import Recipe

A, B = "lora_a", "lora_b"  # what follows a matrix's name in the names of its two inputs


@dataclass(frozen=True, slots=True)
class SlottedLinear:
    """Emits y = x W^T + b + (x a) b' for `a` (K, rank) and `b'` (rank, N), float32 inputs of the graph that are named
    after the matrix; the rank is known when it runs. W is emitted as `base` does."""

    base: Linear

    def emit(self, graph: Graph, x: str, name: str, weight: Float, bias: Float | None) -> str:
        rows, columns = weight.shape
        plain = self.base.emit(graph, x, name, weight, bias)
        a = graph.input(f"{name}.{A}", TensorProto.FLOAT, [columns, f"{name}.rank"])
        b = graph.input(f"{name}.{B}", TensorProto.FLOAT, [f"{name}.rank", rows])
        return graph.op("Add", plain, graph.op("MatMul", graph.op("MatMul", x, a), b))

    def describe(self) -> str:
        return self.base.describe()


def slotted(recipe: Recipe) -> Recipe:
    """The recipe with room beside every matrix of encoder and decoder; the head, which is the embedding, has none."""
    return Recipe(SlottedLinear(recipe.encoder), SlottedLinear(recipe.decoder), recipe.head, recipe.half_tables)
