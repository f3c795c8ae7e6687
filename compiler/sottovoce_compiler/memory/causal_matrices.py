"""The weight matrices of a language model as a graph of ours has them, from its shape and a recipe alone."""

from collections.abc import Iterator

from sottovoce_compiler.families.causal import CausalSpec, role_shape
from sottovoce_compiler.memory.matrices import Matrix
from sottovoce_compiler.memory.recipes import ChatRecipe

_ALONE = ("o", "down")


def causal_matrices(spec: CausalSpec, recipe: ChatRecipe) -> list[Matrix]:
    """Every weight matrix, those multiplied together as one; the head last, which is the embedding where it is tied."""
    found = [matrix for layer in range(spec.layers) for matrix in _of_layer(spec, recipe, layer)]
    head = Matrix(spec.vocab_size, spec.width, recipe.head)
    return [*found, head] if spec.tied else [*found, head, head]


def _of_layer(spec: CausalSpec, recipe: ChatRecipe, layer: int) -> Iterator[Matrix]:
    together = ("q", "k", "v") if recipe.together(layer) else ("q", "k")
    groups = [together, ("gate", "up"), *((role,) for role in _ALONE), *([] if "v" in together else [("v",)])]
    for roles in groups:
        rows = sum(role_shape(spec, role)[0] for role in roles)
        yield Matrix(rows, role_shape(spec, roles[0])[1], recipe.linear(roles[0], layer))
