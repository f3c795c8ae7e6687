"""What the planner reads of a recipe, whichever format it is for: how each matrix is kept."""

from typing import Protocol


class SpeechRecipe(Protocol):
    """Of an encoder-decoder: how the matrices of each part are kept."""

    @property
    def encoder(self) -> object: ...

    @property
    def decoder(self) -> object: ...

    @property
    def head(self) -> object: ...


class ChatRecipe(Protocol):
    """Of a language model: how its embedding and head, and each matrix of a layer, are kept."""

    @property
    def head(self) -> object: ...

    def together(self, layer: int) -> bool:
        """Whether q, k and v of `layer` are multiplied together."""
        ...

    def linear(self, role: str, layer: int) -> object:
        """How the matrix of `role` in `layer` is kept."""
        ...
