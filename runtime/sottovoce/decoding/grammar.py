"""Whisper's token grammar: which tokens steer it, and which may come next.

Rules follow Radford et al. 2022 (arXiv 2212.04356), section 4.5: timestamps come in pairs and never go back, the first
is within a second, and a timestamp is forced when all of them together are likelier than any word. Knows no engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import BundleError, InputError

Float = NDArray[np.float32]

TIMESTAMP_STEP = 0.02  # seconds between neighbouring timestamp tokens
_MAX_FIRST = 50  # timestamp tokens: the first is within a second
_NEVER = np.float32(-np.inf)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids of the tokens that steer decoding, and those never to be chosen; languages in the order of their ids."""

    end: int
    start: int
    translate: int | None
    transcribe: int | None
    start_of_previous: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    languages: Mapping[str, int]
    suppress: tuple[int, ...]
    suppress_at_begin: tuple[int, ...]

    @classmethod
    def of(cls, generation: Mapping[str, Any], vocab_size: int) -> "Tokens":
        """From a manifest's `generation`. Raises BundleError where an id is missing or beyond the vocabulary."""

        def checked(value: object, what: str) -> int:
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab_size:
                raise BundleError(f"the manifest's {what} token is {value!r}; an id below {vocab_size} is needed")
            return value

        def many(value: object, what: str) -> tuple[int, ...]:
            if not isinstance(value, list):
                raise BundleError(f"the manifest's {what} is {value!r}; a list of token ids is needed")
            return tuple(checked(item, what) for item in value)

        raw = generation.get("tokens")
        if not isinstance(raw, Mapping):
            raise BundleError("the manifest has no generation.tokens; compile the bundle again")
        languages = raw.get("languages")
        if not isinstance(languages, Mapping):
            raise BundleError("the manifest has no generation.tokens.languages; compile the bundle again")

        codes = {str(code): checked(value, f"language {code}") for code, value in languages.items()}

        def task(name: str) -> int | None:
            return None if raw.get(name) is None else checked(raw[name], name)

        return cls(
            end=checked(raw.get("end"), "end"),
            start=checked(raw.get("start"), "start"),
            translate=task("translate"),
            transcribe=task("transcribe"),
            start_of_previous=checked(raw.get("start_of_previous"), "start_of_previous"),
            no_speech=checked(raw.get("no_speech"), "no_speech"),
            no_timestamps=checked(raw.get("no_timestamps"), "no_timestamps"),
            timestamp_begin=checked(raw.get("timestamp_begin"), "timestamp_begin"),
            languages=dict(sorted(codes.items(), key=lambda item: item[1])),
            suppress=many(generation.get("suppress"), "suppress"),
            suppress_at_begin=many(generation.get("suppress_at_begin"), "suppress_at_begin"),
        )

    def prompt(self, language: str | None, task: str, timestamps: bool) -> list[int]:
        """The tokens that begin a transcript. Raises InputError for a language or task the model does not have."""
        ids = [self.start]
        if self.languages:
            ids += [self.language_id("en" if language is None else language), self._task_id(task)]
        elif task != "transcribe":
            raise InputError("this model is English only and cannot translate; use task 'transcribe'")
        return ids if timestamps else [*ids, self.no_timestamps]

    def language_id(self, language: str) -> int:
        """The token of a language code. Raises InputError naming the known ones."""
        if language not in self.languages:
            raise InputError(f"language {language!r} is not one of {', '.join(sorted(self.languages))}")
        return self.languages[language]

    def _task_id(self, task: str) -> int:
        ids = {"transcribe": self.transcribe, "translate": self.translate}
        found = ids.get(task)
        if found is None:
            raise InputError(f"task {task!r} is not one of transcribe, translate")
        return found

    def seconds(self, token: int) -> float:
        """The time that a timestamp token stands for, from the start of the piece."""
        return (token - self.timestamp_begin) * TIMESTAMP_STEP


class Grammar:
    """Forbids tokens by setting their logits to minus infinity, in place."""

    def __init__(self, tokens: Tokens, timestamps: bool, suppress: Sequence[int] = (-1,)) -> None:
        self._tokens = tokens
        self._timestamps = timestamps
        chosen = [*(tokens.suppress if -1 in suppress else ()), *(token for token in suppress if token >= 0)]
        # Everything from <|startoftranscript|> to <|notimestamps|> steers; none of it is ever transcript.
        steering = range(tokens.end + 1, tokens.timestamp_begin)
        self._forbidden = np.array(sorted({*chosen, *steering} - {tokens.end}), np.int64)
        self._at_begin = np.array(sorted({*tokens.suppress_at_begin, tokens.end}), np.int64)

    def apply(self, logits: Float, rows: Sequence[Sequence[int]]) -> None:
        """`logits` (rows, vocabulary), `rows` the tokens of each row so far."""
        logits[:, self._forbidden] = _NEVER
        begin = self._tokens.timestamp_begin
        if not self._timestamps:
            logits[:, begin:] = _NEVER
        for row, done in zip(logits, rows, strict=True):
            if not done:
                row[self._at_begin] = _NEVER
            if self._timestamps:
                self._apply_timestamps(row, done)

    def _apply_timestamps(self, row: Float, done: Sequence[int]) -> None:
        begin, end = self._tokens.timestamp_begin, self._tokens.end
        if not done:
            row[:begin] = _NEVER
            row[begin + _MAX_FIRST + 1 :] = _NEVER
            return
        last = done[-1] >= begin
        if last and len(done) > 1 and done[-2] < begin:
            row[:end] = _NEVER  # a closed segment: the next one opens, or the transcript ends
        elif last:
            row[begin:] = _NEVER  # an opened segment: words come
        earlier = max((token for token in done if token >= begin), default=begin)
        opening = last and len(done) > 1 and done[-2] < begin
        row[begin : earlier if opening else earlier + 1] = _NEVER
        self._prefer_timestamp(row)

    def _prefer_timestamp(self, row: Float) -> None:
        begin = self._tokens.timestamp_begin
        words, times = row[:begin].max(), row[begin:]
        top = times.max()
        if np.isfinite(top) and top + np.log(np.exp(times - top).sum()) > words:
            row[:begin] = _NEVER


def language_probabilities(logits: Float, tokens: Tokens) -> dict[str, float]:
    """(vocabulary,) logits after <|startoftranscript|> -> probability of each language, likeliest first."""
    codes = list(tokens.languages)
    chosen = logits[[tokens.languages[code] for code in codes]].astype(np.float64)
    weights = np.exp(chosen - chosen.max())
    shares = weights / weights.sum()
    order = np.argsort(-shares, kind="stable")
    return {codes[i]: float(shares[i]) for i in order}
