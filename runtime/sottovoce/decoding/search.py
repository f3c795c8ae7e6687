"""Choosing tokens: a whole batch at once, greedily or by sampling; or one piece of audio with beams.

Knows engines through their Protocol and grammar as something to apply; knows nothing of segments or fallback.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sottovoce.decoding.grammar import Grammar, Tokens
from sottovoce.decoding.guards import loop_start
from sottovoce.engines import DecodeBatch, Float

_CHECK_LOOPS_EVERY = 4  # tokens


@dataclass(frozen=True, slots=True)
class Decoded:
    """Tokens chosen for one row, without the end token.

    `logprobs` has one value a token and one for the end, where it was chosen; `stopped` is "end", "limit" or "loop".
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    no_speech_prob: float
    temperature: float
    stopped: str

    @property
    def avg_logprob(self) -> float:
        return sum(self.logprobs) / max(1, len(self.logprobs))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is fed first: `ids` (rows, length), where `start_at` is the position of <|startoftranscript|>."""

    ids: NDArray[np.int64]
    start_at: int


@dataclass
class _Row:
    """One row in the making."""

    index: int
    limit: int
    no_speech_prob: float
    random: np.random.Generator | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: str = ""


def sample(
    batch: DecodeBatch,
    prompt: Prompt,
    grammar: Grammar,
    tokens: Tokens,
    limits: Sequence[int],
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> list[Decoded]:
    """Decode every row: greedily at temperature 0, else by sampling with one seed a row.

    `batch` has no past; its audio is still there afterwards. A row's result does not depend on the other rows.
    """
    logits, no_speech = _begin(batch, prompt, tokens)
    generators = [np.random.default_rng(seed) if temperature > 0 else None for seed in seeds or [0] * batch.rows]
    rows = [_Row(i, limits[i], no_speech[i], generators[i]) for i in range(batch.rows)]
    live = rows
    while True:
        grammar.apply(logits, [row.tokens for row in live])
        for row, scores in zip(live, logits, strict=True):
            if not row.stopped:
                _choose(row, scores, tokens.end, temperature)
        going = [row for row in live if not row.stopped]
        if not going:
            break
        if 2 * len(going) <= len(live):
            # Ended rows cost as much as live ones; copying the audio of those that remain costs a few steps.
            batch = batch.fork([at for at, row in enumerate(live) if not row.stopped], past=True)
            live = going
        ids = [[row.tokens[-1] if not row.stopped else tokens.end] for row in live]
        logits = batch.run(np.array(ids, np.int64), [0])[:, 0]
    return [
        Decoded(tuple(row.tokens), tuple(row.logprobs), row.no_speech_prob, temperature, row.stopped) for row in rows
    ]


def _begin(batch: DecodeBatch, prompt: Prompt, tokens: Tokens) -> tuple[Float, list[float]]:
    """Feed the prompt; logits for the first token, and how likely each row holds no speech at all."""
    batch.restart()
    logits = batch.run(prompt.ids, [prompt.start_at, prompt.ids.shape[1] - 1])
    no_speech = [float(np.exp(row[tokens.no_speech] - log_sum(row))) for row in logits[:, 0]]
    return logits[:, 1], no_speech


def _choose(row: _Row, scores: Float, end: int, temperature: float) -> None:
    if row.random is None:
        token = int(scores.argmax())
    else:
        token = int((scores / temperature + row.random.gumbel(size=scores.size)).argmax())
    row.logprobs.append(float(scores[token] - log_sum(scores)))
    if token == end:
        row.stopped = "end"
        return
    row.tokens.append(token)
    if len(row.tokens) >= row.limit:
        row.stopped = "limit"
    elif len(row.tokens) % _CHECK_LOOPS_EVERY == 0 and (cut := loop_start(row.tokens)) is not None:
        row.tokens, row.logprobs, row.stopped = row.tokens[:cut], row.logprobs[:cut], "loop"


def log_sum(scores: Float) -> float:
    """The logarithm of the sum of exponentials of (vocabulary,) logits."""
    top = scores.max()
    return float(top + np.log(np.exp(scores - top).sum()))


@dataclass(frozen=True, slots=True)
class _Beam:
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float


def beam_search(
    batch: DecodeBatch,
    prompt: Prompt,
    grammar: Grammar,
    tokens: Tokens,
    limit: int,
    length_penalty: float = 1.0,
) -> Decoded:
    """The likeliest of as many beams as `batch` has rows, which all hear the same audio.

    Ends when as many hypotheses are finished as there are beams; the best by log probability over length^penalty.
    """
    logits, no_speech = _begin(batch, prompt, tokens)
    beams = [_Beam((), (), 0.0)]
    finished: list[_Beam] = []
    logits = logits[:1]
    while True:
        grammar.apply(logits, [beam.tokens for beam in beams])
        beams, parents, ended = _extend(beams, logits, batch.rows, tokens.end)
        finished += ended
        if len(finished) >= batch.rows or not beams or len(beams[0].tokens) >= limit:
            break
        batch.reorder(parents + [0] * (batch.rows - len(parents)))
        ids = [[beam.tokens[-1]] for beam in beams] + [[tokens.end]] * (batch.rows - len(beams))
        logits = batch.run(np.array(ids, np.int64), [0])[: len(beams), 0]
    pool = finished or beams
    best = max(pool, key=lambda beam: beam.score / max(1, len(beam.logprobs)) ** length_penalty)
    cut = loop_start(best.tokens)
    stopped = "loop" if cut is not None else "end" if finished else "limit"
    return Decoded(best.tokens[:cut], best.logprobs[:cut], no_speech[0], 0.0, stopped)


def _extend(beams: Sequence[_Beam], logits: Float, width: int, end: int) -> tuple[list[_Beam], list[int], list[_Beam]]:
    """The `width` best continuations of all beams, the beam each came from, and those that ended before them."""
    options = []
    for at, (beam, scores) in enumerate(zip(beams, logits, strict=True)):
        total = log_sum(scores)
        for token in np.argpartition(-scores, width)[: width + 1]:
            logprob = float(scores[token] - total)
            options.append((beam.score + logprob, at, int(token), logprob))
    options.sort(reverse=True)
    alive: list[_Beam] = []
    parents: list[int] = []
    ended: list[_Beam] = []
    for score, at, token, logprob in options:
        if not np.isfinite(score):
            break
        logprobs = (*beams[at].logprobs, logprob)
        if token == end:
            ended.append(_Beam(beams[at].tokens, logprobs, score))
            continue
        alive.append(_Beam((*beams[at].tokens, token), logprobs, score))
        parents.append(at)
        if len(alive) == width:
            break
    return alive, parents, ended
