"""A token embedding tied to the output head: looked up by row and multiplied as a matrix, stored once.

Knows how each kind of linear of `linear.py` lays its weight out, and reads rows back from exactly those bytes.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.onnx.graph import Graph
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, Blocks, DynamicInt8Linear, FloatLinear, Linear

Float = NDArray[np.float32]
_FLOAT32 = 1


@dataclass(frozen=True, slots=True)
class TiedEmbedding:
    """The table (vocabulary, width) float32 and how it is kept."""

    linear: Linear
    table: Float
    name: str = "embed_tokens"
    _blocks: dict[BlockLinear, Blocks] = field(default_factory=dict, init=False, repr=False, compare=False)

    def lookup(self, graph: Graph, tokens: str) -> str:
        """Rows for int64 `tokens` (batch, length) -> (batch, length, width) float32."""
        match self.linear:
            case BlockLinear():
                return self._lookup_blocks(graph, tokens, self.linear)
            case DynamicInt8Linear():
                return self._lookup_columns(graph, tokens, self.linear)
            case FloatLinear():
                rows = graph.op("Gather", self._float_weight(graph), tokens)
                return graph.op("Cast", rows, to=_FLOAT32) if self.linear.half else rows
        raise TypeError(f"no lookup for {type(self.linear).__name__}")

    def head(self, graph: Graph, x: str) -> str:
        """Logits of x (..., width) float32 -> (..., vocabulary) float32."""
        if isinstance(self.linear, BlockLinear):
            return self.linear.emit_blocks(graph, x, self.name, self._quantized(self.linear), None)
        if not isinstance(self.linear, FloatLinear):
            return self.linear.emit(graph, x, self.name, self.table, None)
        weight = self._float_weight(graph)
        wide = graph.op("Cast", weight, to=_FLOAT32) if self.linear.half else weight
        return graph.op("FusedMatMul", x, wide, domain="com.microsoft", transB=1)

    def _quantized(self, linear: BlockLinear) -> Blocks:
        """Once for both uses: a vocabulary is large."""
        if linear not in self._blocks:
            self._blocks[linear] = linear.quantize(self.table)
        return self._blocks[linear]

    def _float_weight(self, graph: Graph) -> str:
        name = f"{self.name}.table"
        if any(known.name == name for known in graph.initializers):
            return name
        return graph.weight(name, self.table.astype(np.float16) if self.linear == FloatLinear(True) else self.table)

    def _lookup_blocks(self, graph: Graph, tokens: str, linear: BlockLinear) -> str:
        blocks = self._quantized(linear)
        vocabulary, width = self.table.shape
        # The same bytes as the head's, under a second name: the engine keeps no copy of rows nobody asks for.
        packed = graph.weight(f"{self.name}.rows", blocks.packed.reshape(vocabulary, -1))
        codes = graph.op("Gather", packed, tokens)
        scales = graph.op("Gather", graph.weight(f"{self.name}.rows.scale", blocks.scales), tokens)
        if linear.bits == 4:
            low = graph.op("BitwiseAnd", codes, graph.constant(15, np.uint8))
            high = graph.op("BitShift", codes, graph.constant(4, np.uint8), direction="RIGHT")
            last = graph.constant([-1])
            pairs = [graph.op("Unsqueeze", half, last) for half in (low, high)]
            codes = graph.op("Concat", *pairs, axis=-1)
        shape = graph.constant([0, 0, width // linear.block, linear.block])
        values = graph.op("Reshape", graph.op("Cast", codes, to=_FLOAT32), shape)
        centred = graph.op("Sub", values, graph.constant(1 << (linear.bits - 1), np.float32))
        scaled = graph.op("Mul", centred, graph.op("Unsqueeze", scales, graph.constant([-1])))
        return graph.op("Reshape", scaled, graph.constant([0, 0, width]))

    def _lookup_columns(self, graph: Graph, tokens: str, linear: DynamicInt8Linear) -> str:
        # The multiplied matrix lies transposed, (width, vocabulary): a token is a column of it.
        scale = np.maximum(np.abs(self.table).max(axis=1), 1e-12) / np.float32(linear.levels)
        quantized = np.rint(self.table / scale[:, None]).astype(np.int8)
        columns = graph.weight(f"{self.name}.columns", np.ascontiguousarray(quantized.T))
        picked = graph.op("Gather", columns, tokens, axis=1)
        rows = graph.op("Cast", graph.op("Transpose", picked, perm=[1, 2, 0]), to=_FLOAT32)
        scales = graph.op("Gather", graph.weight(f"{self.name}.columns.scale", scale), tokens)
        return graph.op("Mul", rows, graph.op("Unsqueeze", scales, graph.constant([-1])))
