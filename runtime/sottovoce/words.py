"""Grouping tokens into words: on spaces, or character by character in scripts without them; punctuation joins its word.

Knows text and ids; knows nothing of audio or attention.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_OPENING = "\"'“¿([{-‘«「『（"
_CLOSING = "\"'.。,，!！?？:：”)]}、’»」』）…"


@dataclass(frozen=True, slots=True)
class TokenWord:
    """A word and the half-open range of tokens that make it; `spoken` is where closing punctuation begins, in which the
    pause after a word is heard."""

    text: str
    first: int
    last: int
    spoken: int


def split_words(tokens: Sequence[int], bytes_of: Callable[[Sequence[int]], bytes], language: str) -> list[TokenWord]:
    """Words of `tokens` in order; together their text is the tokens' text."""
    pieces = _characters(tokens, bytes_of)
    if language not in UNSPACED:
        pieces = _joined(pieces, lambda before, piece: not piece.text.startswith(" ") and bool(before.text.strip()))
    pieces = _joined(pieces, lambda before, piece: _closes(piece.text))
    return _joined(pieces, lambda before, _: before.text.strip() != "" and _opens(before.text))


def _closes(text: str) -> bool:
    return text.strip() != "" and all(mark in _CLOSING for mark in text.strip())


def _opens(text: str) -> bool:
    return text.startswith((" ", *_OPENING)) and all(mark in _OPENING for mark in text.strip())


def _characters(tokens: Sequence[int], bytes_of: Callable[[Sequence[int]], bytes]) -> list[TokenWord]:
    """The shortest runs of tokens that end on a whole character."""
    pieces, first = [], 0
    for last in range(1, len(tokens) + 1):
        data = bytes_of(tokens[first:last])
        try:
            text = data.decode()
        except UnicodeDecodeError:
            if last < len(tokens):
                continue
            text = data.decode(errors="replace")
        pieces.append(TokenWord(text, first, last, last))
        first = last
    return pieces


def _joined(pieces: Sequence[TokenWord], joins: Callable[[TokenWord, TokenWord], bool]) -> list[TokenWord]:
    out: list[TokenWord] = []
    for piece in pieces:
        if out and joins(out[-1], piece):
            before = out[-1]
            spoken = before.spoken if _closes(piece.text) and before.text.strip() else piece.spoken
            out[-1] = TokenWord(before.text + piece.text, before.first, piece.last, spoken)
        else:
            out.append(piece)
    return out
