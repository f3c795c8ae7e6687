"""Which precision each matrix of a language model has: decided from a precision's name, the CPU and the model's shape.

Measured reasons are in docs/decisions.md. Knows nothing of how a matrix is stored (`linear.py`, `searched.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import gcd

from sottovoce_compiler.families.causal import CausalSpec, Float
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, FloatLinear, Linear
from sottovoce_compiler.lowerings.onnx.recipe import PRECISIONS, block_size, lacks_dot_product, row_linear
from sottovoce_compiler.lowerings.onnx.searched import SearchedLinear

_BLOCK = 32  # what llama.cpp's types have; 64 lost a third more in 4 bits

# (role, layer) -> mean square of each input column (K,) of that matrix, from calibration text; None where unknown.
Importance = Callable[[str, int], Float | None]


@dataclass(frozen=True, slots=True)
class CausalRecipe:
    """The linear of the embedding and head, of the layers, and of those matrices of layers that are kept finer.

    Roles are those of `LAYER_ROLES`; q stands for k too, gate for up, which are multiplied together, and q for v where
    both are kept alike.
    """

    head: Linear
    layers: Linear
    finer: Mapping[tuple[str, int], Linear] = field(default_factory=dict)
    importance: Importance = lambda role, layer: None

    def together(self, layer: int) -> bool:
        """Whether q, k and v of `layer` are kept alike, and so multiplied together."""
        return self.finer.get(("v", layer)) is self.finer.get(("q", layer))

    def linear(self, role: str, layer: int) -> Linear:
        """How the matrix of `role` in `layer` is stored."""
        chosen = self.finer.get((role, layer), self.layers)
        if isinstance(chosen, SearchedLinear):
            return replace(chosen, importance=self.importance(role, layer))
        return chosen

    def form(self, role: str, layer: int | None) -> str:
        """How a matrix is stored, for the report; the embedding and head have no layer."""
        return (self.head if layer is None else self.linear(role, layer)).describe()


def causal_recipe(
    precision: str,
    arch: str,
    instructions: frozenset[str],
    spec: CausalSpec,
    importance: Importance | None = None,
) -> CausalRecipe:
    """The recipe for `precision` on a CPU of `arch` with `instructions`.

    Raises ValueError for an unknown precision, InputError where no block of weights divides the rows.
    """
    match precision:
        case "fp32":
            return CausalRecipe(FloatLinear(), FloatLinear())
        case "fp16":
            return CausalRecipe(FloatLinear(half=True), FloatLinear(half=True))
        case "int8" | "int4":
            if lacks_dot_product(arch, instructions):
                rows = row_linear(arch, instructions)
                return CausalRecipe(rows, rows)
            return _block_recipe(4 if precision == "int4" else 8, spec, importance)
    raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")


def _block_recipe(bits: int, spec: CausalSpec, importance: Importance | None) -> CausalRecipe:
    block = block_size(gcd(spec.width, spec.ffn, spec.heads * spec.head_width), _BLOCK)
    whole = BlockLinear(8, block, fitted=True)
    if bits == 8:
        return CausalRecipe(whole, whole)
    # On SmolLM2-135M in 4 bits v finer lost 0.4 less for 1 % more bytes, some of down a third less for 6 %; no other
    # choice was worth its bytes. The head has most of the bytes that are left: larger blocks, at no loss.
    finer: dict[tuple[str, int], Linear] = {("v", layer): whole for layer in range(spec.layers)}
    finer |= {("down", layer): whole for layer in range(spec.layers) if keeps_more(layer, spec.layers)}
    head = BlockLinear(8, block_size(spec.width, 2 * block), fitted=True)
    return CausalRecipe(head, SearchedLinear(block), finer, importance or (lambda role, layer: None))


def keeps_more(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers and every third between, whose errors cost most; as llama.cpp's
    "M" mixes have it."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
