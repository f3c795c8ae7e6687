"""The comparison of two models against one made plainly, position by position."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from sottovoce_compiler.report import language
from sottovoce_compiler.report.language import LEAST_BEFORE, WINDOW, Float, Logits, compare, log_softmax, perplexity

VOCAB = 23


def random_model(seed: int, spread: float = 3.0, size: int = VOCAB) -> Logits:
    """Logits that depend on the token and its place."""
    table = np.random.default_rng(seed).normal(0, spread, (WINDOW, VOCAB, size)).astype(np.float32)
    return lambda tokens: table[np.arange(len(tokens)), list(tokens)]


def near(model: Logits, by: float) -> Logits:
    other = random_model(99, by)
    return lambda tokens: model(tokens) + other(tokens)


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(1, VOCAB, count)]


def plainly(source: Logits, artifact: Logits, windows: Sequence[Sequence[int]]) -> tuple[list[float], ...]:
    """Log probabilities of both, divergences and agreements, in the plainest way there is."""
    true, found, kl, same = [], [], [], []
    for window in windows:
        first, second = source(window).astype(np.float64), artifact(window).astype(np.float64)
        for at in range(LEAST_BEFORE - 1, len(window) - 1):
            p, q = (np.exp(row) / np.exp(row).sum() for row in (first[at], second[at]))
            true.append(math.log(p[window[at + 1]]))
            found.append(math.log(q[window[at + 1]]))
            kl.append(float((p * np.log(p / q)).sum()))
            same.append(float(p.argmax() == q.argmax()))
    return true, found, kl, same


@pytest.mark.parametrize("bos", [None, 0])
def test_it_is_the_plain_computation_of_every_window(bos: int | None) -> None:
    source, artifact = random_model(1), near(random_model(1), 0.7)
    passages = [tokens_of(100), tokens_of(WINDOW + 40, 1), tokens_of(3, 2), []]
    before = [] if bos is None else [bos]
    cut = WINDOW - len(before)
    windows = [
        [*before, *passages[0]],
        [*before, *passages[1][:cut]],
        [*before, *passages[1][cut:]],
    ]
    true, found, kl, same = plainly(source, artifact, windows)
    scores = compare(source, artifact, passages, bos)
    assert scores is not None and scores.tokens == len(kl) == sum(len(window) - LEAST_BEFORE for window in windows)
    assert scores.source_perplexity == pytest.approx(math.exp(-np.mean(true)), rel=1e-9)
    assert scores.perplexity == pytest.approx(math.exp(-np.mean(found)), rel=1e-9)
    assert scores.kl == pytest.approx(np.mean(kl), rel=1e-9)
    assert scores.kl_p99 == pytest.approx(np.quantile(kl, 0.99), rel=1e-9)
    assert scores.top1 == pytest.approx(np.mean(same)) and 0.2 < scores.top1 < 1
    assert perplexity(artifact, passages, bos) == (len(kl), pytest.approx(math.exp(-np.mean(found)), rel=1e-9))


def test_a_model_loses_nothing_against_itself() -> None:
    model = random_model(2)
    scores = compare(model, model, [tokens_of(60)], None)
    assert scores is not None
    assert (scores.kl, scores.kl_p99, scores.top1) == (0.0, 0.0, 1.0)
    assert scores.perplexity == scores.source_perplexity


def test_a_model_that_is_sure_of_everything_has_the_divergence_of_its_certainty() -> None:
    """Where the source knows nothing (uniform) and the artifact has two even halves, KL is known by hand."""
    uniform: Logits = lambda tokens: np.zeros((len(tokens), 4), np.float32)  # noqa: E731
    halves = np.log(np.array([0.4, 0.4, 0.1, 0.1], np.float32))
    scores = compare(uniform, lambda tokens: np.tile(halves, (len(tokens), 1)), [[1] * 20], None)
    assert scores is not None
    assert scores.kl == pytest.approx(0.5 * math.log(0.25 / 0.4) + 0.5 * math.log(0.25 / 0.1), rel=1e-6)
    assert scores.perplexity == pytest.approx(2.5, rel=1e-6) and scores.source_perplexity == pytest.approx(4.0)


@pytest.mark.parametrize("count", [0, 1, LEAST_BEFORE])
def test_a_text_too_short_to_score_gives_nothing(count: int) -> None:
    model = random_model(3)
    assert compare(model, model, [tokens_of(count)], None) is None
    assert perplexity(model, [tokens_of(count)], None) is None
    assert compare(model, model, [], 0) is None


def test_one_token_more_is_scored_and_the_beginning_counts_as_one_before() -> None:
    model = random_model(3)
    for bos, count in ((None, LEAST_BEFORE + 1), (0, LEAST_BEFORE)):
        scores = compare(model, model, [tokens_of(count)], bos)
        assert scores is not None and scores.tokens == 1


def test_a_head_that_is_padded_on_one_side_is_compared_in_what_both_have() -> None:
    narrow = random_model(4)

    def padded(tokens: Sequence[int]) -> Float:
        return np.pad(narrow(tokens), ((0, 0), (0, 9)), constant_values=50.0)

    for first, second in ((narrow, padded), (padded, narrow)):
        scores = compare(first, second, [tokens_of(50)], None)
        assert scores is not None and (scores.kl, scores.top1) == (0.0, 1.0)


def test_windows_are_shorter_where_a_model_has_room_for_less() -> None:
    seen: list[int] = []
    model = random_model(5)

    def watched(tokens: Sequence[int]) -> Float:
        seen.append(len(tokens))
        return model(tokens)

    compare(watched, model, [tokens_of(100)], 0, context=40)
    assert seen == [40, 40, 23] and sum(seen) == 100 + 3
    seen.clear()
    perplexity(watched, [tokens_of(100)], None, context=64)
    assert seen == [64, 36]


def test_a_long_text_is_read_only_as_far_as_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "MAX_TOKENS", 600)
    model = random_model(6)
    scores = compare(model, model, [tokens_of(400, seed) for seed in range(9)], None)
    assert scores is not None and scores.tokens == 2 * (400 - LEAST_BEFORE)


def test_progress_is_told_of_every_window() -> None:
    told: list[float] = []
    model = random_model(7)
    compare(model, model, [tokens_of(50), tokens_of(60)], None, told.append)
    assert told == [0.5, 1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_make_scores_that_are_none(value: float) -> None:
    source = random_model(8)

    def broken(tokens: Sequence[int]) -> Float:
        logits = source(tokens).copy()
        logits[20:, 3] = value
        return logits

    with np.errstate(invalid="ignore"):
        scores = compare(source, broken, [tokens_of(50)], None)
    assert scores is not None and math.isnan(scores.kl) and math.isnan(scores.perplexity)


def test_a_model_that_rules_out_the_text_has_an_infinite_perplexity_and_no_traceback() -> None:
    def sure_of_another(tokens: Sequence[int]) -> Float:
        logits = np.zeros((len(tokens), VOCAB), np.float32)
        logits[:, 0] = 5000.0
        return logits

    scores = compare(random_model(9), sure_of_another, [tokens_of(50)], None)
    assert scores is not None and scores.perplexity == math.inf and scores.kl > 100


def test_the_softmax_is_of_double_precision_and_stands_large_logits() -> None:
    logits = np.array([[1e4, 1e4 - 1, 0.0], [0.1, 0.2, 0.3]], np.float32)
    found = log_softmax(logits)
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, rtol=1e-12)
    assert found[0, 0] == pytest.approx(-math.log1p(math.exp(-1)), rel=1e-12)


def test_the_json_is_rounded_to_what_the_data_can_tell() -> None:
    source = random_model(1)
    scores = compare(source, near(source, 0.01), [tokens_of(50)], None)
    assert scores is not None
    values = scores.to_json()
    assert list(values) == ["tokens", "source_perplexity", "perplexity", "kl", "kl_p99", "top1"]
    assert json.loads(json.dumps(values)) == values
    assert values["kl"] == float(f"{scores.kl:.4g}") != scores.kl
