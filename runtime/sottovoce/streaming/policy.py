"""Which words to settle: those that are far enough behind the newest audio, the longer the less sure they are, and
that came out the same each time.

What each rule is worth was measured (docs/streaming.md). The distance is the one of AlignAtt (Papi et al. 2023, arXiv
2305.11408), taken from aligned words and made longer for doubtful ones; agreement of successive hypotheses is the one
of LocalAgreement (Liu et al. 2020, arXiv 2005.11185). Knows words; knows nothing of audio, engines or time but as
numbers.
"""

from collections.abc import Sequence
from typing import Protocol

from sottovoce.streaming.listener import HeardWord

_CERTAIN, _SURE, _DOUBTFUL = 0.98, 0.8, 0.4  # probabilities of a word
_LONGER = 2  # times the distance of a sure word that a less sure one needs, and again for a doubtful one
_AGREEMENTS, _AGREEMENTS_IF_CERTAIN = 2, 1  # earlier hypotheses that said the same


class Policy(Protocol):
    """Decides which words stay. Hypotheses begin after the words settled before; `Settling` says more."""

    def reset(self) -> None: ...

    def add(self, words: Sequence[HeardWord]) -> None: ...

    def count(self, words: Sequence[HeardWord], now: float, quiet: bool) -> int: ...

    def settle(self, count: int) -> None: ...


class Settling:
    """Counts the words at the head of a hypothesis that will not change; `hold_back` in seconds."""

    def __init__(self, hold_back: float) -> None:
        self._hold_back = hold_back
        self._earlier: list[tuple[str, ...]] = []  # the newest last, itself included

    def reset(self) -> None:
        """What comes next was not heard before."""
        self._earlier = []

    def add(self, words: Sequence[HeardWord]) -> None:
        """A new hypothesis, of everything after the settled words."""
        self._earlier = [*self._earlier[-_AGREEMENTS:], tuple(plain(one.word.word) for one in words)]

    def count(self, words: Sequence[HeardWord], now: float, quiet: bool) -> int:
        """Words of the newest hypothesis to settle, where the audio reaches `now`.

        In a pause (`quiet`) nothing can follow that changes them: neither agreement nor a next word is asked for.
        """
        for at, one in enumerate(words):
            if one.word.end > now - self._distance(one.word.probability):
                return at
            if not quiet and (at + 1 == len(words) or not self._agreed(at + 1, one.word.probability)):
                return at
        return len(words)

    def settle(self, count: int) -> None:
        """The first `count` words are settled: later hypotheses begin after them."""
        if count and self._earlier:
            head = self._earlier[-1][:count]
            self._earlier = [words[count:] for words in self._earlier if words[:count] == head]

    def _agreed(self, count: int, probability: float) -> bool:
        """Whether the last hypotheses began with the same `count` words."""
        needed = _AGREEMENTS_IF_CERTAIN if probability >= _CERTAIN else _AGREEMENTS
        latest = self._earlier[-1][:count]
        return len(self._earlier) > needed and all(words[:count] == latest for words in self._earlier[-1 - needed :])

    def _distance(self, probability: float) -> float:
        if probability >= _SURE:
            return self._hold_back
        return self._hold_back * (_LONGER if probability >= _DOUBTFUL else _LONGER**2)


def plain(word: str) -> str:
    """A word as it is compared: without case and punctuation."""
    return "".join(letter for letter in word.lower() if letter.isalnum())
