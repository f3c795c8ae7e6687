"""Decoding pieces of audio until the result can be believed: first greedily or with beams, then at rising temperatures.

Knows search and guards; decides which attempt is kept. Thresholds: Radford et al. 2022, section 4.5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sottovoce.decoding.grammar import Grammar, Tokens
from sottovoce.decoding.guards import compression_ratio
from sottovoce.decoding.search import Decoded, Prompt, beam_search, sample
from sottovoce.engines import DecodeBatch
from sottovoce.types import TranscribeOptions


@dataclass(frozen=True, slots=True)
class Attempt:
    """A decoded row with what the guards say of it."""

    decoded: Decoded
    compression_ratio: float
    silent: bool  # no speech, as far as the model can tell
    failed: bool  # looping, too repetitive or improbable: worth another try


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes batches under one set of options."""

    tokens: Tokens
    grammar: Grammar
    options: TranscribeOptions
    text_of: Callable[[Sequence[int]], str]

    def decode(self, batch: DecodeBatch, prompt: Prompt, limits: Sequence[int], names: Sequence[int]) -> list[Attempt]:
        """One attempt for every row of `batch`; `names` tell rows apart, so that a seed gives each its own
        randomness."""
        first, *later = self.options.temperature
        tried = [[attempt] for attempt in self._at(first, batch, prompt, limits, names)]
        for temperature in later:
            again = [row for row, attempts in enumerate(tried) if attempts[-1].failed]
            if not again:
                break
            part = Prompt(prompt.ids[again], prompt.start_at)
            picked = [limits[row] for row in again], [names[row] for row in again]
            for row, attempt in zip(
                again, self._at(temperature, batch.fork(again, past=False), part, *picked), strict=True
            ):
                tried[row].append(attempt)
        return [self._best(attempts) for attempts in tried]

    def _at(
        self,
        temperature: float,
        batch: DecodeBatch,
        prompt: Prompt,
        limits: Sequence[int],
        names: Sequence[int],
    ) -> list[Attempt]:
        if temperature == 0 and self.options.beam_size > 1:
            found = [self._beams(batch, row, prompt, limits[row]) for row in range(batch.rows)]
        else:
            seeds = [self.options.seed + 1_000 * name + round(100 * temperature) for name in names]
            found = sample(batch, prompt, self.grammar, self.tokens, limits, temperature, seeds)
        return [self._judge(decoded) for decoded in found]

    def _beams(self, batch: DecodeBatch, row: int, prompt: Prompt, limit: int) -> Decoded:
        width = self.options.beam_size
        beams = batch.fork([row] * width, past=False)
        ids = np.repeat(prompt.ids[row : row + 1], width, axis=0)
        start_at, penalty = prompt.start_at, self.options.length_penalty
        return beam_search(beams, Prompt(ids, start_at), self.grammar, self.tokens, limit, penalty)

    def _judge(self, decoded: Decoded) -> Attempt:
        options = self.options
        ratio = compression_ratio(self.text_of(decoded.tokens))
        improbable = decoded.avg_logprob < options.log_prob_threshold
        silent = improbable and decoded.no_speech_prob > options.no_speech_threshold
        broken = decoded.stopped == "loop" or ratio > options.compression_ratio_threshold
        return Attempt(decoded, ratio, silent, failed=not silent and (broken or improbable))

    def _best(self, attempts: Sequence[Attempt]) -> Attempt:
        """The last one, if it passed; else the likeliest of those that do not repeat themselves."""
        if not attempts[-1].failed:
            return attempts[-1]
        sound = [
            attempt
            for attempt in attempts
            if attempt.decoded.stopped != "loop"
            and attempt.compression_ratio <= self.options.compression_ratio_threshold
        ]
        return replace(max(sound or attempts, key=lambda attempt: attempt.decoded.avg_logprob), failed=True)
