"""What the decoding loop lets others decide: which tokens may come next. Knows no grammar and imports none."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Constraint(Protocol):
    """What an answer may be: a grammar with the place in it that the answer has reached.

    The loop asks in this order for every token: `forced`, until it gives none; `mask`; then `accept` of what was
    chosen. Forced tokens are accepted one by one like any others. A token that ends the answer (`Vocabulary.ends`) is
    never given to `accept`: where the answer may end, `mask` allows the ends.
    """

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow: the answer ends here, without a token for it."""
        ...

    def forced(self) -> Sequence[int]:
        """Tokens that must come next, evaluated without choosing; empty where there is a choice or nothing follows."""
        ...

    def mask(self) -> NDArray[np.bool_] | None:
        """Which tokens may come next, (vocabulary,), valid until the next `accept`; None where all may."""
        ...

    def accept(self, token: int) -> None:
        """Go on past `token`. Raises EngineError where it was not allowed."""
        ...
