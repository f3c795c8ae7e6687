"""How each matrix of a language model is stored in a package: decided from a precision's name and the model's shape.

The 4-bit mixes are those that were measured for ONNX Runtime (`lowerings/onnx/causal_recipe.py`): value projections and
some of the down projections keep 8 bits, as does the embedding, which is the head too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.lowerings.coreml.precision import PALETTES
from sottovoce_compiler.lowerings.coreml.weights import Blocks, Half, Int8Rows, Palette, Stored, weighed
from sottovoce_compiler.lowerings.onnx.causal_recipe import keeps_more
from sottovoce_compiler.lowerings.onnx.recipe import block_size

Float = NDArray[np.float32]
_BLOCK = 32


@dataclass(frozen=True, slots=True)
class CausalParts:
    """The embedding and head, the layers, and those matrices of layers that are kept finer, by role and layer;
    `importance` (columns,) float32 by `key`."""

    head: Stored
    layers: Stored
    finer: Mapping[tuple[str, int], Stored] = field(default_factory=dict)
    importance: Mapping[str, Float] = field(default_factory=dict)

    def of(self, role: str, layer: int | None) -> Stored:
        """How the matrix of `role` in `layer` is stored."""
        if layer is None:
            return self.head
        return weighed(self.finer.get((role, layer), self.layers), self.importance.get(key(role, layer)))


def key(role: str, layer: int | None) -> str:
    """The name of a weight in a job."""
    return role if layer is None else f"{layer}.{role}"


def causal_parts(precision: str, spec: CausalSpec, importance: Mapping[str, Float] | None) -> CausalParts:
    """The parts for `precision`, one of `COREML_PRECISIONS`. Raises InputError where no block divides the rows."""
    rows = Int8Rows()
    if precision == "fp16":
        return CausalParts(Half(), Half())
    if precision == "int8":
        return CausalParts(rows, rows)
    known = importance or {}
    if precision == "int4":
        block = block_size(gcd(spec.width, spec.ffn, spec.heads * spec.head_width), _BLOCK)
        fine: Stored = Blocks(8, block)
        return CausalParts(rows, Blocks(4, block), _finer(spec, fine), known)
    bits = PALETTES[precision]
    if bits == 4:
        return CausalParts(rows, Palette(4, grouped=True), _finer(spec, rows), known)
    return CausalParts(rows, Palette(bits), {}, known)


def _finer(spec: CausalSpec, fine: Stored) -> dict[tuple[str, int], Stored]:
    found = {("v", layer): fine for layer in range(spec.layers)}
    return found | {("down", layer): fine for layer in range(spec.layers) if keeps_more(layer, spec.layers)}
