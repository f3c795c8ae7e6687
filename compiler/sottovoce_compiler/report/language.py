"""How much a packed language model lost: its distribution over the next token against its source's, on the same text.

Knows logits and how to compare them; knows neither engine nor transformers. Both models read the same windows of
tokens, each from an empty context, so that nothing but the weights and kernels differ.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Logits = Callable[[Sequence[int]], Float]  # tokens (n) -> logits (n, vocabulary), after each of them

WINDOW = 512  # tokens read at once: the length at which llama.cpp's own perplexity is quoted
LEAST_BEFORE = 8  # tokens a scored one has before it; with fewer, it is the text's beginning that is guessed
MAX_TOKENS = 16_384  # scored at most; the interval is then well below what quantization costs
_ROWS = 32  # positions compared at once, in double precision


@dataclass(frozen=True, slots=True)
class LanguageScores:
    """What both models made of `tokens` scored tokens.

    `source_perplexity` and `perplexity` are exp of the mean negative log probability of the text's own tokens; `kl` is
    the mean over positions of KL(source || artifact) in nats over the whole vocabulary, `kl_p99` its 99th percentile;
    `top1` the share of positions where both have the same likeliest token.
    """

    tokens: int
    source_perplexity: float
    perplexity: float
    kl: float
    kl_p99: float
    top1: float

    def to_json(self) -> dict[str, Any]:
        """JSON values, rounded to what the data can tell."""
        return {
            "tokens": self.tokens,
            "source_perplexity": round(self.source_perplexity, 4),
            "perplexity": round(self.perplexity, 4),
            "kl": float(f"{self.kl:.4g}"),
            "kl_p99": float(f"{self.kl_p99:.4g}"),
            "top1": round(self.top1, 4),
        }


@dataclass
class _Sums:
    source: list[float] = field(default_factory=list)  # log probability of each scored token
    artifact: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    same: int = 0


def compare(
    source: Logits,
    artifact: Logits,
    passages: Sequence[Sequence[int]],
    bos: int | None,
    progress: Callable[[float], None] = lambda done: None,
    context: int = WINDOW,
) -> LanguageScores | None:
    """Both models on the tokens of each passage, without their beginning-of-text token `bos`, which is put before every
    window where there is one. Windows are of WINDOW tokens, or of `context` where a model has room for fewer. None
    where the text is too short to score anything.
    """
    windows = list(_windows(passages, bos, min(WINDOW, context)))
    sums = _Sums()
    for index, window in enumerate(windows):
        _score(source(window), artifact(window), window, sums)
        progress((index + 1) / len(windows))
    if not sums.kl:
        return None
    return LanguageScores(
        len(sums.kl),
        _perplexity(sums.source),
        _perplexity(sums.artifact),
        math.fsum(sums.kl) / len(sums.kl),
        float(np.quantile(sums.kl, 0.99)),
        sums.same / len(sums.kl),
    )


def perplexity(
    logits: Logits,
    passages: Sequence[Sequence[int]],
    bos: int | None,
    progress: Callable[[float], None] = lambda done: None,
    context: int = WINDOW,
) -> tuple[int, float] | None:
    """One model alone, as `compare`: the number of tokens scored, and its perplexity on them."""
    windows = list(_windows(passages, bos, min(WINDOW, context)))
    found: list[float] = []
    for index, window in enumerate(windows):
        values = logits(window)
        for rows, wanted in _blocks(window):
            shares = log_softmax(values[rows])
            found += shares[np.arange(len(wanted)), wanted].tolist()
        progress((index + 1) / len(windows))
    return (len(found), _perplexity(found)) if found else None


def log_softmax(logits: Float) -> NDArray[np.float64]:
    """Natural log probabilities (n, vocabulary) in double precision."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    shares: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return shares


def _perplexity(logprobs: Sequence[float]) -> float:
    """exp of minus their mean; infinite where it has no number, as of a model that is broken."""
    with np.errstate(over="ignore"):
        return float(np.exp(-np.mean(logprobs)))


def _windows(passages: Sequence[Sequence[int]], bos: int | None, size: int) -> Iterator[list[int]]:
    before = [] if bos is None else [bos]
    scored = 0
    for passage in passages:
        for start in range(0, len(passage), max(1, size - len(before))):
            window = [*before, *passage[start : start + size - len(before)]]
            if len(window) <= LEAST_BEFORE:
                continue
            yield window
            scored += len(window) - LEAST_BEFORE
            if scored >= MAX_TOKENS:
                return


def _score(source: Float, artifact: Float, window: Sequence[int], sums: _Sums) -> None:
    for rows, wanted in _blocks(window):
        # A head may be padded to a round size on one side; what both know is compared.
        width = min(source.shape[1], artifact.shape[1])
        true, found = log_softmax(source[rows, :width]), log_softmax(artifact[rows, :width])
        each = np.arange(len(wanted))
        sums.source += true[each, wanted].tolist()
        sums.artifact += found[each, wanted].tolist()
        # Below 0 only by rounding, where both are the same.
        sums.kl += np.maximum((np.exp(true) * (true - found)).sum(axis=-1), 0).tolist()
        sums.same += int((true.argmax(axis=-1) == found.argmax(axis=-1)).sum())


def _blocks(window: Sequence[int]) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Positions to compare, a few at a time, each with the token that follows it."""
    for start in range(LEAST_BEFORE - 1, len(window) - 1, _ROWS):
        end = min(start + _ROWS, len(window) - 1)
        yield slice(start, end), np.array(window[start + 1 : end + 1])
