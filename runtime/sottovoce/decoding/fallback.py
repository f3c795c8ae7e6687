"""Decoding pieces of audio until the result can be believed: first greedily or with beams, then at rising temperatures.

Knows search and guards; decides which attempt is kept. Thresholds: Radford et al. 2022, section 4.5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sottovoce.decoding.grammar import Grammar, Tokens
from sottovoce.decoding.guards import compression_ratio, too_fast
from sottovoce.decoding.search import Decoded, Prompt, beam_search, sample
from sottovoce.engines import DecodeBatch
from sottovoce.types import TranscribeOptions


@dataclass(frozen=True, slots=True)
class Attempt:
    """A decoded row with what the guards say of it."""

    decoded: Decoded
    compression_ratio: float
    silent: bool  # no speech, as far as the model can tell
    broken: bool  # looping, too repetitive, or more than can be said in the time
    failed: bool  # broken or improbable: worth another try


@dataclass(frozen=True, slots=True)
class RowLimits:
    """What one row may hold: tokens at most, seconds of audio; and a number that gives it its own randomness."""

    tokens: int
    seconds: float
    name: int


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes batches under one set of options."""

    tokens: Tokens
    grammar: Grammar
    options: TranscribeOptions
    text_of: Callable[[Sequence[int]], str]

    def decode(self, batch: DecodeBatch, prompt: Prompt, rows: Sequence[RowLimits]) -> list[Attempt]:
        """One attempt for every row of `batch`."""
        first, *later = self.options.temperature
        tried = [[attempt] for attempt in self._at(first, batch, prompt, rows)]
        for temperature in later:
            again = [row for row, attempts in enumerate(tried) if attempts[-1].failed]
            if not again:
                break
            part = Prompt(prompt.ids[again], prompt.start_at)
            found = self._at(temperature, batch.fork(again, past=False), part, [rows[row] for row in again])
            for row, attempt in zip(again, found, strict=True):
                tried[row].append(attempt)
        return [self._best(attempts) for attempts in tried]

    def _at(self, temperature: float, batch: DecodeBatch, prompt: Prompt, rows: Sequence[RowLimits]) -> list[Attempt]:
        if temperature == 0 and self.options.beam_size > 1:
            found = [self._beams(batch, at, prompt, row.tokens) for at, row in enumerate(rows)]
        else:
            limits = [row.tokens for row in rows]
            seeds = [self.options.seed + 1_000 * row.name + round(100 * temperature) for row in rows]
            found = sample(batch, prompt, self.grammar, self.tokens, limits, temperature, seeds)
        return [self._judge(decoded, row.seconds) for decoded, row in zip(found, rows, strict=True)]

    def _beams(self, batch: DecodeBatch, row: int, prompt: Prompt, limit: int) -> Decoded:
        width = self.options.beam_size
        beams = batch.fork([row] * width, past=False)
        ids = np.repeat(prompt.ids[row : row + 1], width, axis=0)
        start_at, penalty = prompt.start_at, self.options.length_penalty
        return beam_search(beams, Prompt(ids, start_at), self.grammar, self.tokens, limit, penalty)

    def _judge(self, decoded: Decoded, seconds: float) -> Attempt:
        options = self.options
        text = self.text_of(decoded.tokens)
        ratio = compression_ratio(text)
        improbable = decoded.avg_logprob < options.log_prob_threshold
        silent = improbable and decoded.no_speech_prob > options.no_speech_threshold
        broken = decoded.stopped == "loop" or ratio > options.compression_ratio_threshold or too_fast(text, seconds)
        return Attempt(decoded, ratio, silent, broken, failed=not silent and (broken or improbable))

    def _best(self, attempts: Sequence[Attempt]) -> Attempt:
        """The last one, if it passed; else the likeliest of those that are not broken.

        Where all are broken, what came before a loop is kept if it is probable; the rest was not said.
        """
        if not attempts[-1].failed:
            return attempts[-1]
        whole = [attempt for attempt in attempts if not attempt.broken]
        best = max(whole or attempts, key=lambda attempt: attempt.decoded.avg_logprob)
        return replace(best, silent=best.silent or not (whole or self._begins_well(best)))

    def _begins_well(self, attempt: Attempt) -> bool:
        ratio_allowed = self.options.compression_ratio_threshold
        probable = attempt.decoded.avg_logprob >= self.options.log_prob_threshold
        return attempt.decoded.stopped == "loop" and probable and attempt.compression_ratio <= ratio_allowed
