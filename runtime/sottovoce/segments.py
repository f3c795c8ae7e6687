"""From the tokens of one piece of audio to segments with times, and to words.

Knows the token grammar and the alignment; knows nothing of engines, batches or fallback.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.decoding.grammar import Tokens
from sottovoce.tokens import TokenTable
from sottovoce.types import Word
from sottovoce.words import split_words

_LONGEST_WORD = 2.0  # seconds; attention that lingers in a pause is not a word that lasts


@dataclass(frozen=True, slots=True)
class Cut:
    """A segment inside a piece: times in seconds from the piece's start; tokens as a half-open range of the piece's
    text tokens (timestamps not counted). `closed` says whether the transcript itself gave the end.
    """

    start: float
    end: float
    first: int
    last: int
    closed: bool


def cut_segments(ids: Sequence[int], tokens: Tokens, duration: float) -> list[Cut]:
    """Segments by the timestamps among `ids`; the whole piece where there are none."""
    cuts: list[Cut] = []
    start, first, count = 0.0, 0, 0
    for i, token in enumerate(ids):
        if token < tokens.timestamp_begin:
            count += token < tokens.end
            continue
        time = min(tokens.seconds(token), duration)
        if count > first:
            closing = i + 1 == len(ids) or ids[i + 1] >= tokens.timestamp_begin
            cuts.append(Cut(start, max(time, start), first, count, closing))
            first = count
        start = time
    if count > first:
        cuts.append(Cut(start, max(duration, start), first, count, closed=False))
    return cuts


def timed_words(
    text: Sequence[int],
    logprobs: Sequence[float],
    times: NDArray[np.float64],
    table: TokenTable,
    language: str,
    place: Callable[[float], float],
) -> list[tuple[int, Word]]:
    """Words of a piece's text tokens, each with the index of its first token; `place` turns a time in the piece into
    one in the recording, both in seconds.

    `times` has one more value than `text`: the end of the last token.
    """
    words = []
    for piece in split_words(text, table.decode_bytes, language):
        start, end = float(times[piece.first]), float(times[piece.spoken])
        end = min(max(end, start), start + _LONGEST_WORD)
        probability = float(np.exp(np.mean(logprobs[piece.first : piece.last])))
        word = Word(place(start), place(end), piece.text, round(probability, 4))
        words.append((piece.first, word))
    return words
