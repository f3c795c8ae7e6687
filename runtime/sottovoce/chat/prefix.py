"""Which tokens the engine's cache holds, so that a prompt that begins like the last one is not evaluated again.

Knows tokens and one engine; knows nothing of text or messages.
"""

from collections.abc import Sequence

from sottovoce.engines.chat import ChatEngine, Float
from sottovoce.errors import InputError


class PrefixCache:
    """The engine's sequence, by its tokens. Everything that is evaluated goes through here.

    What `engine.length` says is the truth: tokens are noted before they are evaluated and whatever the engine does
    not hold is forgotten at the next use. So an error, an interrupt at any moment, or an adapter (which empties the
    engine) leaves nothing wrong behind.
    """

    def __init__(self, engine: ChatEngine) -> None:
        self.engine = engine
        self._noted: list[int] = []

    @property
    def tokens(self) -> tuple[int, ...]:
        """What is in the cache."""
        return tuple(self._known())

    def reuse(self, tokens: Sequence[int]) -> int:
        """Keep what the cache and `tokens` begin with alike, but for the last of `tokens`, whose logits are wanted.

        Returns how many of them need no evaluation; the others are for `evaluate`.
        """
        known = self._known()
        self.truncate(_common(known, tokens, min(len(known), len(tokens) - 1)))
        return len(self._known())

    def evaluate(self, tokens: Sequence[int], *, outputs: int = 1) -> Float:
        """As `ChatEngine.evaluate`."""
        self._known().extend(tokens)
        return self.engine.evaluate(tokens, outputs=outputs)

    def truncate(self, length: int) -> None:
        """As `ChatEngine.truncate`; an engine that cannot forget so little forgets more, see its `length`."""
        if length < self.engine.length:
            self.engine.truncate(length)

    def restore(self, tokens: Sequence[int], state: bytes | memoryview) -> None:
        """Take over a saved sequence. Raises InputError where the engine refuses `state`; the cache is then empty, and
        the next prompt is evaluated whole."""
        self._noted = []
        self.engine.load_state(state, len(tokens))
        if self.engine.length != len(tokens):
            self.engine.truncate(0)
            raise InputError(f"the saved state does not hold the {len(tokens)} tokens it should")
        self._noted = list(tokens)

    def _known(self) -> list[int]:
        length = self.engine.length
        if length > len(self._noted):  # somebody else evaluated: nothing is known of what is there
            self.engine.truncate(0)
            length = 0
        del self._noted[length:]
        return self._noted


def _common(left: Sequence[int], right: Sequence[int], most: int) -> int:
    """How many of the first `most` are alike."""
    for at in range(most):
        if left[at] != right[at]:
            return at
    return max(0, most)
