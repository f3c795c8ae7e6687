"""What is settled of the audio in the window: tokens, words and their language; and where old audio can be let go.

Knows words and times; knows nothing of audio or decoding.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from sottovoce.streaming.events import Committed
from sottovoce.streaming.listener import HeardWord, Hypothesis
from sottovoce.types import Word
from sottovoce.vad import SAMPLE_RATE

_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")
_SENTENCE_WORTH = 0.3  # seconds of pause that the end of a sentence is as good as


class Utterance:
    """The settled head of what is being said."""

    def __init__(self) -> None:
        self._words: list[HeardWord] = []
        self._end = 0.0  # seconds of the stream: no word to come begins before

    @property
    def tokens(self) -> list[int]:
        return [token for one in self._words for token in one.tokens]

    @property
    def end(self) -> int:
        """The sample of the stream before which nothing is open."""
        return round(self._end * SAMPLE_RATE)

    def settle(self, words: Sequence[HeardWord], language: str) -> Committed:
        """Take in words that follow; times of all settled words never go back."""
        said = []
        for one in words:
            start = max(one.word.start, self._end)
            self._end = max(one.word.end, start)
            said.append(Word(start, self._end, one.word.word, one.word.probability))
        self._words += [HeardWord(word, one.tokens) for word, one in zip(said, words, strict=True)]
        return Committed("".join(word.word for word in said), tuple(said), language)

    def begins(self, time: float) -> None:
        """Speech begins, and no word of it before: alignment puts the first one where the audio begins."""
        self._end = max(self._end, time)

    def clear(self) -> None:
        """The window begins anew."""
        self._words = []

    def best_cut(self, earliest: float, wanted: float) -> float | None:
        """The time between two settled words at which to let go of what came before: the longest pause, or the end of
        a sentence, near `wanted` and not before `earliest`; None where there is none."""
        found = []
        for before, after in pairwise(self._words):
            at = (before.word.end + after.word.start) / 2
            if at >= earliest:
                pause = after.word.start - before.word.end
                sentence = before.word.word.strip().endswith(_SENTENCE_ENDS)
                found.append((pause + _SENTENCE_WORTH * sentence - abs(at - wanted) / 50, at))
        return max(found)[1] if found else None

    def forget_before(self, time: float) -> None:
        """Words whose middle lies before `time` are let go, with their audio."""
        self._words = [one for one in self._words if (one.word.start + one.word.end) / 2 > time]


class Language:
    """The language spoken, heard again and again until something is settled in it."""

    _MEMORY = 1.0  # seconds of speech that what was heard before the pause counts as

    def __init__(self, given: str | None) -> None:
        self._given = given
        self._fixed: str | None = given
        self._earlier: Mapping[str, float] = {}
        self._now: Mapping[str, float] = {}

    @property
    def fixed(self) -> str | None:
        """The language to decode in; None while it is still to be heard."""
        return self._fixed

    def heard(self, hypothesis: Hypothesis, seconds: float) -> str | None:
        """Take in what a hypothesis over `seconds` of audio told; the likeliest language by all that was heard."""
        if hypothesis.languages is None:
            return self._fixed or hypothesis.language
        shares = hypothesis.languages
        self._now = {code: seconds * p + self._MEMORY * self._earlier.get(code, 0.0) for code, p in shares.items()}
        return max(self._now, key=lambda code: self._now[code])

    def settle(self, language: str) -> None:
        """Something is settled in it: it stays until the speaker does."""
        self._fixed = language

    def new_speech(self) -> None:
        """Somebody begins to speak, perhaps in another language."""
        if self._now:
            total = sum(self._now.values())
            self._earlier = {code: share / total for code, share in self._now.items()}
        self._fixed = self._given
