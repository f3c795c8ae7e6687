"""How one weight matrix is stored and multiplied: the precisions of a lowering, one class each.

Knows quantization and the operators that run it; knows nothing of which matrix belongs where (`whisper.py` decides).
All take a weight of shape (N, K) float32, as `torch.nn.Linear` keeps it, and compute y = x W^T + b for x of shape
(..., K).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.onnx.graph import MICROSOFT, Graph

Float = NDArray[np.float32]

_AT_ONCE = 1 << 18  # values quantized together


class Linear(Protocol):
    """Emits y = x W^T + b into a graph."""

    def emit(self, graph: Graph, x: str, name: str, weight: Float, bias: Float | None) -> str: ...

    def describe(self) -> str:
        """How a weight is stored, for the report."""
        ...


@dataclass(frozen=True, slots=True)
class FloatLinear:
    """Weights kept as they are (float32), or stored in half the bytes (float16) and widened when the session loads."""

    half: bool = False

    def describe(self) -> str:
        return "fp16" if self.half else "fp32"

    def emit(self, graph: Graph, x: str, name: str, weight: Float, bias: Float | None) -> str:
        kernel = np.ascontiguousarray(weight.T)
        if self.half:
            stored = graph.weight(name, kernel.astype(np.float16))
            y = graph.op("MatMul", x, graph.op("Cast", stored, to=1))
        else:
            y = graph.op("MatMul", x, graph.weight(name, kernel))
        return y if bias is None else graph.op("Add", y, graph.weight(f"{name}.bias", bias))


@dataclass(frozen=True, slots=True)
class DynamicInt8Linear:
    """Weights int8 with one scale an output channel; activations uint8, quantized as they arrive, one scale a tensor.

    The fastest form for many rows at once (the encoder). `levels` is the largest magnitude of a weight: 127, or 63
    where the CPU adds pairs of products in 16 bits and would saturate (AVX2 without VNNI: 255 * 127 * 2 > 32767 >= 255
    * 64 * 2).
    """

    levels: int = 127

    def describe(self) -> str:
        return "8 bits by row"

    def emit(self, graph: Graph, x: str, name: str, weight: Float, bias: Float | None) -> str:
        scale = np.maximum(np.abs(weight).max(axis=1), 1e-12) / np.float32(self.levels)
        quantized = np.rint(weight / scale[:, None]).astype(np.int8)
        inputs = [
            graph.weight(name, np.ascontiguousarray(quantized.T)),
            graph.weight(f"{name}.scale", scale.astype(np.float32)),
        ]
        if bias is not None:
            inputs += ["", graph.weight(f"{name}.bias", bias)]
        return graph.op("DynamicQuantizeMatMul", x, *inputs, domain=MICROSOFT)


# Scales to try, as shares of the one that reaches a block's largest value. At 8 bits the second is that of codes from
# -127 to 127, in which GGUF's Q8_0 is written.
_SHRINKS = {4: np.linspace(0.8, 1.1, 13, dtype=np.float32), 8: np.array([1, 128 / 127, 129 / 127], np.float32)}


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix quantized in blocks along its rows: `packed` (N, K / block, block * bits / 8) uint8, `scales` (N, K /
    block)."""

    packed: NDArray[np.uint8]
    scales: Float


@dataclass(frozen=True, slots=True)
class BlockLinear:
    """Weights of 8 or 4 bits with one scale a block; activations int8, one scale a block of each row.

    The fastest form for a few rows (the decoder), and rows do not influence each other: a clip decodes to the same text
    whatever else is in its batch. `fitted` looks for the best scale at 8 bits too; weights that were 8 bits before, as
    GGUF has them, are then kept exactly.
    """

    bits: int
    block: int
    fitted: bool = False

    def describe(self) -> str:
        return f"{self.bits} bits in blocks of {self.block}"

    def quantize(self, weight: Float) -> Blocks:
        """Symmetric quantization; at 4 bits each block's scale is the one of a few that loses least in mean square.

        Raises ValueError if the row length is not a multiple of the block.
        """
        rows, columns = weight.shape
        if columns % self.block:
            raise ValueError(f"rows of {columns} values do not divide into blocks of {self.block}")
        blocks = weight.reshape(rows, columns // self.block, self.block)
        # A few rows at a time: what is worked on stays in the cache, and a large vocabulary in memory.
        step = max(1, _AT_ONCE // columns)
        parts = [self._quantize_rows(blocks[start : start + step]) for start in range(0, rows, step)]
        return Blocks(np.concatenate([part.packed for part in parts]), np.concatenate([part.scales for part in parts]))

    def _quantize_rows(self, blocks: Float) -> Blocks:
        scales = self._scales(blocks)
        zero = 1 << (self.bits - 1)
        codes = np.clip(np.rint(blocks / scales[..., None]) + zero, 0, 2 * zero - 1).astype(np.uint8)
        if self.bits == 4:
            codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
        return Blocks(codes, scales)

    def _scales(self, blocks: Float) -> Float:
        # The code range is lopsided (-2^(b-1) .. 2^(b-1)-1): the value of largest magnitude takes the longer side.
        extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1)[..., None], axis=-1)[..., 0]
        top = 1 << (self.bits - 1)
        base = np.where(np.abs(extreme) < 1e-12, 1e-12, -extreme / top).astype(np.float32)
        if self.bits == 8 and not self.fitted:
            return base
        best, best_error = base, np.full(base.shape, np.inf, dtype=np.float32)
        for shrink in _SHRINKS[self.bits]:
            scales = base * shrink
            codes = np.clip(np.rint(blocks / scales[..., None]), -top, top - 1)
            error = ((codes * scales[..., None] - blocks) ** 2).sum(axis=-1)
            best = np.where(error < best_error, scales, best)
            best_error = np.minimum(error, best_error)
        return best

    def emit(self, graph: Graph, x: str, name: str, weight: Float, bias: Float | None) -> str:
        return self.emit_blocks(graph, x, name, self.quantize(weight), bias)

    def emit_blocks(self, graph: Graph, x: str, name: str, blocks: Blocks, bias: Float | None) -> str:
        """As `emit`, of a matrix that was quantized before."""
        rows, columns = len(blocks.packed), blocks.scales.shape[1] * self.block
        inputs = [graph.weight(name, blocks.packed), graph.weight(f"{name}.scale", blocks.scales)]
        if bias is not None:
            inputs += ["", "", graph.weight(f"{name}.bias", bias)]
        attributes: dict[str, Any] = {"K": columns, "N": rows, "bits": self.bits, "block_size": self.block}
        return graph.op("MatMulNBits", x, *inputs, domain=MICROSOFT, accuracy_level=4, **attributes)
