"""What a live run is worth: how long after a word was spoken it was first shown, and when it stayed.

Knows stamped events and when words ended. Does not know how they were played (stream_clock.py), nor what a clip is.

Words are compared without case and punctuation. Several definitions matter, and are these:

- The end of a spoken word is told from outside: (word, end) pairs, the same for all systems that are compared. They are
  aligned with the committed words (Levenshtein); only words equal on both sides have a delay.
- A word is committed when the `Committed` that holds it is known.
- A word is first shown when what is shown, committed text and then partial text, has it for the first time at the place
  that it has in the final transcript. A word that no partial showed is first shown as it is committed.
- A word is rewritten when it was shown and is no longer: of each showing, the words after the first that differs from
  the next showing, words that vanished at its end included. Divided by the final words this is the normalised erasure
  of Arivazhagan et al. 2020 (arXiv 1912.03393).
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from sottovoce.streaming.events import Committed, Partial, SpeechEnded
from sottovoce.types import Word
from sottovoce_compiler.report.normalize import counts_characters
from sottovoce_compiler.report.stream_clock import Stamped

_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"

WordEnd = tuple[str, float]  # a word and when its sound ended, in seconds of the recording


@dataclass(frozen=True, slots=True)
class WordTiming:
    """A committed word whose spoken end is known; seconds, the last two on the virtual clock."""

    word: str
    end: float
    shown: float
    committed: float

    @property
    def shown_delay(self) -> float:
        """From the word's end until it was first shown; negative where it was guessed before it was over."""
        return self.shown - self.end

    @property
    def commit_delay(self) -> float:
        """From the word's end until it was final."""
        return self.committed - self.end


@dataclass(frozen=True, slots=True)
class StreamScore:
    """One run, or several as one. `words` are all that were committed, `rewritten` what readers saw taken back."""

    timings: tuple[WordTiming, ...] = ()
    words: int = 0
    rewritten: int = 0

    @property
    def rewritten_per_word(self) -> float | None:
        """Words taken back for each word of the transcript; None where there are none."""
        return self.rewritten / self.words if self.words else None

    @property
    def commit_delay(self) -> "Spread | None":
        """From a word's end to its commit."""
        return spread([timing.commit_delay for timing in self.timings])

    @property
    def shown_delay(self) -> "Spread | None":
        """From a word's end to its first showing."""
        return spread([timing.shown_delay for timing in self.timings])

    def __add__(self, other: "StreamScore") -> "StreamScore":
        return StreamScore(self.timings + other.timings, self.words + other.words, self.rewritten + other.rewritten)


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and percentiles over words, in seconds."""

    mean: float
    p50: float
    p90: float
    p99: float


def spread(values: Sequence[float]) -> Spread | None:
    """None of nothing; percentiles interpolate linearly."""
    if not values:
        return None
    p50, p90, p99 = (float(value) for value in np.percentile(values, [50, 90, 99]))
    return Spread(float(np.mean(values)), p50, p90, p99)


def text_of(events: Iterable[Stamped]) -> str:
    """The transcript: all committed text."""
    return "".join(one.event.text for one in events if isinstance(one.event, Committed)).strip()


def ends_of(words: Iterable[Word]) -> tuple[WordEnd, ...]:
    """When words ended, as a transcription of the whole recording says."""
    return tuple((word.word, word.end) for word in words)


def score_events(events: Sequence[Stamped], ends: Sequence[WordEnd], language: str | None) -> StreamScore:
    """Delays of the words in `events` whose ends are known, and how much was rewritten.

    Languages written without spaces are taken by characters, each of which ends with its word.
    """
    final, committed_at = _committed(events, language)
    shown_at, rewritten = _shown(events, final, language)
    spoken = [(unit, end) for word, end in ends for unit in words_of(word, language)]
    blocks = Levenshtein.opcodes([unit for unit, _ in spoken], final)
    pairs = (
        (block.src_start + i, block.dest_start + i)
        for block in blocks
        if block.tag == "equal"
        for i in range(block.src_end - block.src_start)
    )
    timings = tuple(WordTiming(final[j], spoken[i][1], shown_at[j], committed_at[j]) for i, j in pairs)
    return StreamScore(timings, len(final), rewritten)


def words_of(text: str, language: str | None) -> list[str]:
    """Words without case and punctuation, their number unchanged: "Don't (well-known)" is dont, well and known."""
    kept = "".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in _without(text, _APOSTROPHES))
    words = kept.casefold().split()
    return list("".join(words)) if counts_characters(language) else words


def _without(text: str, unwanted: str) -> str:
    return text.translate({ord(char): None for char in unwanted})


def _committed(events: Sequence[Stamped], language: str | None) -> tuple[list[str], list[float]]:
    """The words of the transcript and when each was final."""
    final: list[str] = []
    at: list[float] = []
    for one in events:
        if isinstance(one.event, Committed):
            words = words_of(one.event.text, language)
            final += words
            at += [one.at] * len(words)
    return final, at


def _shown(events: Sequence[Stamped], final: Sequence[str], language: str | None) -> tuple[list[float], int]:
    """When each word of `final` first stood at its place, and how many shown words were taken back.

    A commit replaces as many partial words as it has; the rest of the partial text stands until the next partial, or
    falls where the commit contradicts it. What is partial at the very end never became final.
    """
    at: list[float | None] = [None] * len(final)
    settled, rewritten = 0, 0
    tail: list[str] = []
    for one in events:
        match one.event:
            case Partial(text=text):
                after = words_of(text, language)
                rewritten += len(tail) - _agreed(tail, after)
                tail = after
            case Committed(text=text):
                after = words_of(text, language)
                agreed = _agreed(tail, after)
                if agreed < min(len(tail), len(after)):
                    rewritten += len(tail) - agreed
                    tail = []
                _stamp(at, final, settled, after, one.at)
                tail, settled = tail[len(after) :], settled + len(after)
            case SpeechEnded():
                rewritten += len(tail)
                tail = []
            case _:
                continue
        _stamp(at, final, settled, tail, one.at)
    return [time for time in at if time is not None], rewritten + len(tail)


def _stamp(at: list[float | None], final: Sequence[str], first: int, shown: Sequence[str], now: float) -> None:
    for i, word in enumerate(shown, first):
        if i < len(final) and at[i] is None and final[i] == word:
            at[i] = now


def _agreed(before: Sequence[str], after: Sequence[str]) -> int:
    """How many words at the beginning are the same."""
    count = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        count += 1
    return count
