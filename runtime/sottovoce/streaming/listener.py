"""Decoding what has been heard so far: audio and the tokens that are settled in, words with times out.

Knows the engine through its Protocol and one stretch of audio; knows nothing of when to decode, nor of which words
to settle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sottovoce.alignment import token_times
from sottovoce.decoding.grammar import Grammar, Tokens, language_probabilities
from sottovoce.decoding.guards import compression_ratio, loop_start, too_fast
from sottovoce.decoding.search import log_sum
from sottovoce.engines import DecodeBatch, Float, SpeechEngine
from sottovoce.segments import timed_words
from sottovoce.tokens import TokenTable
from sottovoce.types import TranscribeOptions, Word
from sottovoce.vad import SAMPLE_RATE
from sottovoce.words import UNSPACED

_FRAME = 320  # samples of one encoded frame
# Whisper loses a consonant that begins the audio, and has learned to wait for speech (pieces.py).
_LEAD = np.zeros(SAMPLE_RATE // 10, np.float32)
_LEAD_SECONDS = _LEAD.size / SAMPLE_RATE
_TOKENS_A_SECOND = 25  # nobody speaks faster
_TOKENS_TO_SPARE = 12
_MAX_TOKENS = 224  # half the text context, as Whisper was trained
_ROOM = 448 - 8  # tokens of the text context, less those that begin a transcript
_CHECK_LOOPS_EVERY = 4  # tokens
_LIMITS = TranscribeOptions()  # its thresholds hold here too


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word, and the tokens that make it."""

    word: Word
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What to decode: `samples` (n,) float32 at 16 kHz, which begin `start` samples into the stream and in which
    `settled` tokens are said; `open_from` is the sample of the stream from which nothing is settled; `previous` is the
    text before."""

    samples: Float
    start: int
    settled: Sequence[int] = ()
    open_from: int = 0
    previous: Sequence[int] = ()

    @property
    def most_tokens(self) -> int:
        """How many can follow the settled ones."""
        return min(_MAX_TOKENS, round(self.open_seconds * _TOKENS_A_SECOND) + _TOKENS_TO_SPARE)

    @property
    def open_seconds(self) -> float:
        """Length of the audio in which nothing is settled."""
        return (self.start + self.samples.size - max(self.start, self.open_from)) / SAMPLE_RATE

    def time(self, seconds: float) -> float:
        """A time in what the encoder hears as seconds from the start of the stream."""
        inside = min(max(seconds - _LEAD_SECONDS, 0.0), self.samples.size / SAMPLE_RATE)
        return round(inside + self.start / SAMPLE_RATE, 3)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The words that follow the settled ones, in a language; none where the model doubts that anybody speaks.

    None either where the text cannot be what was said: it compresses too well, or is more than fits the time.
    `looped` says that it began to repeat itself; the words are those before.
    `languages` has all languages' probabilities where they were asked for.
    """

    words: tuple[HeardWord, ...]
    language: str
    looped: bool
    languages: dict[str, float] | None = None


@dataclass
class _Chosen:
    """Tokens in the making, and the attention (heads, 1.., keys) while each of them was predicted."""

    attention: list[Float]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    looped: bool = False


class Listener:
    """Decodes excerpts, always greedily: a step must be quick, and the next one hears more."""

    def __init__(self, engine: SpeechEngine, tokens: Tokens, table: TokenTable, task: str) -> None:
        self._engine, self._tokens, self._table, self._task = engine, tokens, table, task
        self._grammar = Grammar(tokens, timestamps=False)
        self._continuing: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None

    def hear(self, excerpt: Excerpt, language: str | None) -> Hypothesis:
        """What is said after the settled tokens; the language is heard first where it is None.

        Raises EngineError when the engine does.
        """
        room = _ROOM - len(excerpt.settled)
        most = min(excerpt.most_tokens, room)
        previous = excerpt.previous[max(0, len(excerpt.previous) - (room - most)) :]
        before = [self._tokens.start_of_previous, *previous] if previous else []
        capacity = len(before) + len(self._tokens.prompt("en", "transcribe", False)) + len(excerpt.settled) + most
        batch = self._engine.start([np.concatenate([_LEAD, excerpt.samples])], capacity)
        languages = self._languages(batch) if language is None else None
        spoken = language or (next(iter(languages)) if languages else "en")
        prompt = [*before, *self._tokens.prompt(spoken, self._task, timestamps=False)]
        ids = np.array([[*prompt, *excerpt.settled]], np.int64)
        batch.restart()
        logits = batch.run(ids, [len(before), ids.shape[1] - 1])
        silence = float(np.exp(logits[0, 0, self._tokens.no_speech] - log_sum(logits[0, 0])))
        # Position i predicts the token after it: the prompt's last one predicts the first of the text.
        chosen = _Chosen([batch.alignment()[0][:, len(prompt) - 1 :].copy()])
        self._choose(batch, logits[:, 1], chosen, excerpt.settled, most, spoken)
        text = self._table.decode(chosen.tokens)
        absurd = too_fast(text, excerpt.open_seconds) or compression_ratio(text) > _LIMITS.compression_ratio_threshold
        sure = sum(chosen.logprobs) / max(1, len(chosen.logprobs)) >= _LIMITS.log_prob_threshold
        silent = silence > _LIMITS.no_speech_threshold and not sure
        words = () if silent or absurd else self._words(excerpt, chosen, spoken)
        return Hypothesis(words, spoken, chosen.looped, languages)

    def _languages(self, batch: DecodeBatch) -> dict[str, float] | None:
        if not self._tokens.languages:
            return None
        logits = batch.run(np.full((1, 1), self._tokens.start, np.int64), [0])
        return language_probabilities(logits[0, 0], self._tokens)

    def _choose(
        self, batch: DecodeBatch, scores: Float, chosen: _Chosen, settled: Sequence[int], most: int, language: str
    ) -> None:
        """Fill `chosen`, from the scores (1, vocabulary) of its first token on."""
        if settled and language not in UNSPACED:
            scores[0, self._continuations()] = -np.inf  # a settled word does not grow
        while True:
            self._grammar.apply(scores, [[*settled, *chosen.tokens]])
            token = int(scores[0].argmax())
            chosen.logprobs.append(float(scores[0, token] - log_sum(scores[0])))
            if token == self._tokens.end:
                return
            chosen.tokens.append(token)
            if len(chosen.tokens) % _CHECK_LOOPS_EVERY == 0 and (cut := loop_start(chosen.tokens)) is not None:
                del chosen.tokens[cut:], chosen.logprobs[cut:]
                chosen.looped = True
                return
            if len(chosen.tokens) >= most:
                return
            scores = batch.run(np.array([[token]], np.int64), [0])[:, 0]
            chosen.attention.append(batch.alignment()[0].copy())

    def _continuations(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Tokens that do not begin a word, but for the end."""
        if self._continuing is None:
            texts, end = self._table.texts, self._tokens.end
            self._continuing = np.array([i for i in range(end) if not texts[i].startswith(b" ")], np.int64)
        return self._continuing

    def _words(self, excerpt: Excerpt, chosen: _Chosen, language: str) -> tuple[HeardWord, ...]:
        tokens = chosen.tokens
        if not tokens:
            return ()
        settled = len(excerpt.settled)
        attention = np.concatenate(chosen.attention, axis=1)[:, : settled + len(tokens) + 1]
        if attention.shape[1] == settled + len(tokens):  # cut off at the limit: nothing predicted what comes after
            attention = np.concatenate([attention, attention[:, -1:]], axis=1)
        frames = -(-(_LEAD.size + excerpt.samples.size) // _FRAME)
        times = token_times(attention, frames)[settled:]
        timed = timed_words(tokens, chosen.logprobs, times, self._table, language, excerpt.time)
        ends = [first for first, _ in timed[1:]] + [len(tokens)]
        return tuple(
            HeardWord(word, tuple(tokens[first:last])) for (first, word), last in zip(timed, ends, strict=True)
        )
