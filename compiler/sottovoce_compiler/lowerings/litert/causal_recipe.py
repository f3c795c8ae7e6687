"""Which precision each matrix of a language model has in a LiteRT bundle: decided from a precision's name and the
model's shape, as for ONNX (`lowerings/onnx/causal_recipe.py`). Measured reasons are in docs/litert.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import gcd

from sottovoce_compiler.families.causal import CausalSpec, Float
from sottovoce_compiler.lowerings.litert.precision import LITERT_PRECISIONS
from sottovoce_compiler.lowerings.litert.recipe import four_bits
from sottovoce_compiler.lowerings.litert.stores import Int4Blocks, Int8Rows, KeepFloat, Store
from sottovoce_compiler.lowerings.onnx.causal_recipe import keeps_more

# (role, layer) -> mean square of each input column (K,) of that matrix, from calibration text; None where unknown.
Importance = Callable[[str, int], Float | None]


@dataclass(frozen=True, slots=True)
class CausalRecipe:
    """The form of the embedding and head, of the layers, and of those matrices of layers that are kept finer.

    Roles are those of `LAYER_ROLES`; q stands for k too, gate for up, which are multiplied together, and q for v where
    both are kept alike.
    """

    head: Store
    layers: Store
    finer: Mapping[tuple[str, int], Store] = field(default_factory=dict)
    importance: Importance = lambda role, layer: None

    def together(self, layer: int) -> bool:
        """Whether q, k and v of `layer` are kept alike, and so multiplied together."""
        return ("v", layer) not in self.finer

    def linear(self, role: str, layer: int) -> Store:
        """How the matrix of `role` in `layer` is stored."""
        chosen = self.finer.get((role, layer), self.layers)
        return replace(chosen, importance=self.importance(role, layer)) if isinstance(chosen, Int4Blocks) else chosen

    def form(self, role: str, layer: int | None) -> str:
        """How a matrix is stored, for the report; the embedding and head have no layer."""
        return (self.head if layer is None else self.linear(role, layer)).describe()


def causal_recipe(precision: str, spec: CausalSpec, importance: Importance | None = None) -> CausalRecipe:
    """The recipe for `precision`.

    Raises ValueError for an unknown precision, InputError where no block of weights divides the rows.
    """
    match precision:
        case "fp32":
            return CausalRecipe(KeepFloat(), KeepFloat())
        case "fp16":
            return CausalRecipe(KeepFloat(half=True), KeepFloat(half=True))
        case "int8":
            return CausalRecipe(Int8Rows(), Int8Rows())
        case "int4":
            blocks = four_bits(gcd(spec.width, spec.ffn, spec.heads * spec.head_width))
            finer: dict[tuple[str, int], Store] = {("v", layer): Int8Rows() for layer in range(spec.layers)}
            finer |= {("down", i): Int8Rows() for i in range(spec.layers) if keeps_more(i, spec.layers)}
            return CausalRecipe(Int8Rows(), blocks, finer, importance or (lambda role, layer: None))
    raise ValueError(f"precision {precision!r} is not one of {', '.join(LITERT_PRECISIONS)}")
