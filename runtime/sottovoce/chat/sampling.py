"""Which token comes next, given logits: penalties, filters, one random number.

Knows numbers and options; knows nothing of text, engines or grammars but which tokens are allowed. In this order, which
is transformers' and so the one that the numbers recommended with a model were tried in:

1. penalties: repetition (Keskar et al. 2019, CTRL, section 4.1; over prompt and answer), then frequency and presence
   (OpenAI API reference; over the answer alone), then the bias
2. only what is allowed
3. temperature
4. top-k (Fan et al. 2018), equal logits by the lowest id
5. top-p: the fewest tokens that together have the probability (nucleus, Holtzman et al. 2019)
6. min-p: at least that fraction of the likeliest token's probability (Nguyen et al. 2024)

The token is where the sum of the probabilities that are left, the largest first (in the order of the ids where nothing
is filtered), passes a random number of a PCG64 generator, whose stream NumPy guarantees. Each choice takes exactly one
number, and none at temperature 0.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sottovoce.chat.options import ChatOptions
from sottovoce.engines.chat import Float
from sottovoce.errors import EngineError, InputError

GREEDY_BELOW = 1e-3  # a temperature: the likeliest token is taken
_BLOCKS = 64  # a vocabulary is folded into this many rows to find its largest logits
_NEVER = -1e30  # added to a logit that is not allowed: below all others, and no overflow when divided
_FEW = 8  # where at most one token in so many is allowed, the others are left out instead

_Ids = NDArray[np.intp]
_Mask = NDArray[np.bool_]
_Weights = NDArray[np.float64]


class Sampler:
    """Chooses the tokens of one answer. Same options, prompt, logits and seed: same tokens, on every platform."""

    def __init__(self, options: ChatOptions, vocabulary: int, prompt: Iterable[int] = ()) -> None:
        """`vocabulary` is how many logits there are; `prompt` is what the repetition penalty counts as said before.

        Raises InputError for a bias of a token that is beyond.
        """
        self._options = options
        self._greedy = options.temperature < GREEDY_BELOW
        self._random = np.random.PCG64(None if options.seed is None else options.seed % (1 << 64))
        self._penalties = _Penalties(options, vocabulary, prompt)

    def choose(self, logits: Float, mask: _Mask | None = None) -> int:
        """One token for `logits` (vocabulary,) float32, which stay as they are; `mask` (vocabulary,) says which are
        allowed. Raises EngineError for logits that are not numbers, InputError where nothing is allowed."""
        scores = self._penalties.apply(logits)
        if mask is None:
            return self._choose(scores)
        if self._greedy and mask[scores.argmax()]:
            return self._choose(scores)
        allowed = int(np.count_nonzero(mask))
        if not allowed:
            raise InputError("the format that was asked for allows no token here; no text can fulfil it")
        if allowed * _FEW <= mask.size:
            ids = np.flatnonzero(mask)
            return int(ids[self._choose(scores[ids])])
        hidden = np.subtract(mask, np.float32(1), dtype=np.float32)  # 0, or -1 where it is not allowed
        hidden *= np.float32(-_NEVER)
        hidden += scores
        return self._choose(hidden)

    def accept(self, token: int) -> None:
        """Count `token` as said."""
        self._penalties.count(token)

    def _choose(self, scores: Float) -> int:
        best = int(scores.argmax())
        top = float(scores[best])
        if not _NEVER / 2 < top < math.inf:
            raise EngineError(f"the engine's logits are not numbers ({top}); the model file may be damaged")
        if self._greedy:
            return best
        number = (self._random.random_raw() >> 11) * 2.0**-53  # [0, 1)
        options = self._options
        if not options.top_k and options.top_p == 1 and options.min_p == 0:
            return _anywhere(_unfiltered(scores, top, options.temperature), number)
        ids, weights, total = self._candidates(scores, top)
        sums = np.cumsum(weights)
        kept = int(np.count_nonzero(weights >= options.min_p)) if options.min_p else weights.size
        if options.top_p < 1:
            needed = options.top_p * (float(sums[-1]) if total is None else total)
            kept = min(kept, int(np.searchsorted(sums, needed)) + 1)
        return int(ids[_passed(sums[:kept], number)])

    def _candidates(self, scores: Float, top: float) -> tuple[_Ids, _Weights, float | None]:
        """All tokens that a filter may keep, the likeliest first, of equal ones the lowest id; their probabilities as
        multiples of the likeliest's; and, where top-p counts more than these, the sum over all."""
        options = self._options
        temperature = options.temperature
        if options.top_k:
            return *_sorted(scores, _largest(scores, options.top_k), options.top_k, top, temperature), None
        total = float(_unfiltered(scores, top, temperature).sum()) if options.top_p < 1 else math.inf
        # Weights fall with distance from the top as exp(-distance): as far as min-p reaches, or, doubled until the
        # nucleus is in, as far as top-p does.
        reach = -math.log(options.min_p) if options.min_p else 8.0
        while True:
            ids = np.flatnonzero(scores >= _below(top - reach * temperature))
            found, weights = _sorted(scores, ids, ids.size, top, temperature)
            if options.min_p or ids.size == scores.size or weights.sum() >= options.top_p * total:
                return found, weights, total
            reach = reach * 2 if reach < 64 else math.inf


class _Penalties:
    """What tokens were said, and what that takes off their logits. Costs nothing where there is no penalty."""

    def __init__(self, options: ChatOptions, vocabulary: int, prompt: Iterable[int]) -> None:
        self._repetition = np.float32(options.repetition_penalty)
        self._frequency, self._presence = options.frequency_penalty, options.presence_penalty
        self._counts = bool(self._frequency or self._presence or options.repetition_penalty != 1)
        self._said: set[int] = set()
        self._places: dict[int, int] = {}  # token: its place in the arrays, which grow
        self._ids = np.zeros(64, np.intp)
        self._taken_off = np.zeros(64, np.float32)
        if options.repetition_penalty != 1:
            for token in prompt:
                self._place(token)
        self._bias_ids = np.array(list(options.logit_bias), np.intp)
        self._bias = np.array(list(options.logit_bias.values()), np.float32)
        if self._bias_ids.size and self._bias_ids.max() >= vocabulary:
            raise InputError(f"logit_bias has the token {self._bias_ids.max()}; the model has {vocabulary} tokens")
        self._scratch = np.empty(vocabulary, np.float32) if self._counts or self._bias_ids.size else None

    def count(self, token: int) -> None:
        if self._counts:
            place = self._place(token)
            self._taken_off[place] += self._frequency + (self._presence if token not in self._said else 0)
            self._said.add(token)

    def _place(self, token: int) -> int:
        place = self._places.setdefault(token, len(self._places))
        if place == self._ids.size:
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._taken_off = np.concatenate([self._taken_off, np.zeros_like(self._taken_off)])
        self._ids[place] = token
        return place

    def apply(self, logits: Float) -> Float:
        """`logits` less the penalties: the same array where there are none, else one that the next call overwrites."""
        if self._scratch is None:
            return logits
        np.copyto(self._scratch, logits)
        ids = self._ids[: len(self._places)]
        if ids.size:
            said = self._scratch[ids]
            if self._repetition != 1:
                said = np.where(said > 0, said / self._repetition, said * self._repetition)
            self._scratch[ids] = said - self._taken_off[: ids.size]
        self._scratch[self._bias_ids] += self._bias
        return self._scratch


def _largest(scores: Float, count: int) -> _Ids:
    """The ids, rising, of the `count` largest of `scores` and maybe some more."""
    if count >= scores.size:
        return np.arange(scores.size)
    columns = scores.size // _BLOCKS
    if columns < 2 * count:
        return np.flatnonzero(scores >= np.partition(scores, scores.size - count)[scores.size - count])
    # So many columns of the folded vocabulary have a maximum of at least `bound`: so at least so many scores are.
    folded = scores[: columns * _BLOCKS].reshape(_BLOCKS, columns)
    maxima = folded.max(axis=0)
    bound = np.partition(maxima, columns - count)[columns - count]
    chosen = np.flatnonzero(maxima >= bound)
    found = np.flatnonzero(folded.take(chosen, axis=1) >= bound)  # in the rows of what was taken
    ids = found // chosen.size * columns + chosen[found % chosen.size]
    rest = scores[columns * _BLOCKS :]
    return np.concatenate([ids, np.flatnonzero(rest >= bound) + columns * _BLOCKS]) if rest.size else ids


def _below(bound: float) -> np.float32:
    """A float32 that is less, by no more than two of its steps."""
    below: np.float32 = np.nextafter(np.float32(bound), np.float32(-np.inf))
    return below


def _sorted(scores: Float, ids: _Ids, count: int, top: float, temperature: float) -> tuple[_Ids, _Weights]:
    """The `count` likeliest of `ids`, which rise; and their weights, exp of their distance to the top, in float64."""
    distance = scores[ids].astype(np.float64)
    distance -= top
    order = np.argsort(-distance, kind="stable")[:count]
    weights = distance[order]
    weights /= temperature
    return ids[order], np.exp(weights, out=weights)


def _unfiltered(scores: Float, top: float, temperature: float) -> Float:
    """Weights of the whole vocabulary, in float32: 1e-6 of the sum is not worth five times the time."""
    weights: Float = scores - np.float32(top)
    weights *= np.float32(1 / temperature)
    np.exp(weights, out=weights)
    return weights


def _passed(sums: _Weights, number: float) -> int:
    """The first of rising `sums` that is over `number` times the last; so none that adds nothing to the one before."""
    total = float(sums[-1])
    return int(np.searchsorted(sums, min(number * total, math.nextafter(total, 0)), side="right"))


def _anywhere(weights: Float, number: float) -> int:
    """The same for a whole vocabulary: first the stretch of it, whose sums are float32, then within, in float64."""
    width = max(1, weights.size // _BLOCKS)
    whole = weights.size // width * width
    stretches = np.append(weights[:whole].reshape(-1, width).sum(axis=1), weights[whole:].sum())
    sums = np.cumsum(stretches, dtype=np.float64)
    at = _passed(sums, number)
    before = float(sums[at - 1]) if at else 0.0
    within = (number * float(sums[-1]) - before) / float(stretches[at])
    inner = np.cumsum(weights[at * width : (at + 1) * width], dtype=np.float64)
    return at * width + _passed(inner, min(max(within, 0.0), 1.0))
