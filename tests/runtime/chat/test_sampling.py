from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sottovoce.chat.options import ChatOptions
from sottovoce.chat.sampling import Sampler
from sottovoce.errors import EngineError, InputError

Array = NDArray[Any]
PLAIN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"top_k": 12, "top_p": 0.7, "min_p": 0.05, "temperature": 1.5},
    {"top_p": 0.9, "min_p": 0.2, "temperature": 2.0},
    {"top_p": 0.0},
    {"min_p": 1.0},
    {"top_k": 1},
]


def reference(logits: Array, options: ChatOptions, mask: Array | None = None) -> Array:
    """Probabilities (vocabulary,) float64 by the definitions, everything sorted, nothing left out early."""
    scores = np.where(mask, logits, -np.inf) if mask is not None else logits
    scores = scores.astype(np.float64) / options.temperature
    order = np.argsort(-scores, kind="stable")
    probabilities = np.exp(scores[order] - scores[order[0]])
    if options.top_k:
        probabilities[options.top_k :] = 0
    probabilities /= probabilities.sum()
    if options.top_p < 1:
        before = np.cumsum(probabilities) - probabilities
        probabilities[1:][before[1:] >= options.top_p] = 0
    probabilities[probabilities < options.min_p * probabilities[0]] = 0
    found = np.zeros(logits.size)
    found[order] = probabilities / probabilities.sum()
    return found


def options_of(**given: Any) -> ChatOptions:
    return ChatOptions(**{**PLAIN, "seed": 1, **given})


def logits_of(size: int, seed: int = 0, peaks: int = 0) -> Array:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, size).astype(np.float32)
    logits[random.choice(size, peaks, replace=False)] += random.normal(12, 3, peaks).astype(np.float32)
    return logits


def draws(sampler: Sampler, logits: Array, count: int, mask: Array | None = None) -> list[int]:
    return [sampler.choose(logits, mask) for _ in range(count)]


def numbers(seed: int, count: int) -> Array:
    """The random numbers that a sampler of this seed takes."""
    generator = np.random.PCG64(seed)
    return np.array([(int(generator.random_raw()) >> 11) * 2.0**-53 for _ in range(count)])


def picked(probabilities: Array, at: Array, options: ChatOptions) -> list[int]:
    """Where the sum passes each number: the likeliest first, but in the order of the ids where there is no filter."""
    filtered = options.top_k or options.top_p < 1 or options.min_p
    order = np.argsort(-probabilities, kind="stable") if filtered else np.arange(len(probabilities))
    return [int(order[one]) for one in np.searchsorted(np.cumsum(probabilities[order]), at, side="right")]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("size", [3, 24, 200])
def test_tokens_come_as_often_as_the_definitions_say(filters: dict[str, Any], size: int) -> None:
    options, logits = options_of(**filters), logits_of(size)
    expected = reference(logits, options)
    counts = np.bincount(draws(Sampler(options, size), logits, 4000), minlength=size)
    assert not counts[expected == 0].any()
    spread = np.sqrt(4000 * expected * (1 - expected))
    assert (np.abs(counts - 4000 * expected) <= 5 * spread + 1e-9).all()


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("size", [4097, 49_152, 50_001])
@pytest.mark.parametrize("share", [None, 0.9, 0.01], ids=["free", "most allowed", "few allowed"])
def test_on_a_large_vocabulary_every_choice_is_that_of_the_plain_definitions(
    filters: dict[str, Any], size: int, share: float | None
) -> None:
    options, logits = options_of(seed=3, **filters), logits_of(size, peaks=60)
    mask = None if share is None else np.random.default_rng(5).random(size) < share
    expected = picked(reference(logits, options, mask), numbers(3, 50), options)
    assert draws(Sampler(options, size), logits, 50, mask) == expected


def test_a_flat_distribution_is_sampled_from_end_to_end() -> None:
    chosen = draws(Sampler(options_of(), 1000), np.zeros(1000, np.float32), 500)
    assert chosen == picked(np.full(1000, 0.001), numbers(1, 500), options_of())
    assert min(chosen) < 20 and max(chosen) > 980


def test_a_nucleus_that_reaches_far_below_the_likeliest_is_found_whole() -> None:
    logits = np.full(30_000, -9.0, np.float32)
    logits[17] = 0
    options = options_of(top_p=0.95)
    chosen = draws(Sampler(options, logits.size), logits, 300)
    assert chosen == picked(reference(logits, options), numbers(1, 300), options)
    assert len(set(chosen)) > 200


@pytest.mark.parametrize("rest", [-90.0, -np.inf])
def test_a_nucleus_of_nearly_everything_is_found_too(rest: float) -> None:
    logits = np.full(5000, rest, np.float32)
    logits[:4000] = 0
    sampler = Sampler(options_of(top_p=1 - 2**-53), logits.size)
    assert draws(sampler, logits, 100) == picked(np.full(4000, 1 / 4000), numbers(1, 100), options_of(top_k=9))


@pytest.mark.parametrize("size", range(4096, 4160, 9))
def test_the_last_tokens_of_a_vocabulary_of_any_size_are_among_the_likeliest(size: int) -> None:
    logits = logits_of(size)
    logits[-3:] = 30
    assert set(draws(Sampler(options_of(top_k=3), size), logits, 60)) == {size - 3, size - 2, size - 1}


def test_at_temperature_zero_the_likeliest_is_taken_and_of_equal_ones_the_first() -> None:
    logits = np.array([0, 3, 1, 3], np.float32)
    assert draws(Sampler(options_of(temperature=0.0), 4), logits, 5) == [1] * 5
    masked = np.array([True, False, True, False])
    assert Sampler(options_of(temperature=0.0), 4).choose(logits, masked) == 2


def test_of_equal_logits_top_k_keeps_those_with_the_lowest_ids() -> None:
    logits = np.zeros(40_000, np.float32)
    logits[[77, 20_001, 39_999]] = 1
    sampler = Sampler(options_of(top_k=5), logits.size)
    assert set(draws(sampler, logits, 200)) == {0, 1, 77, 20_001, 39_999}


def test_the_same_seed_chooses_the_same_and_another_something_else() -> None:
    logits = logits_of(500)
    first, again, other = (draws(Sampler(options_of(seed=seed), 500), logits, 40) for seed in (8, 8, 9))
    assert first == again != other


def test_these_choices_are_the_same_on_every_platform() -> None:
    logits = (np.arange(1000) % 97).astype(np.float32) / 16
    assert draws(Sampler(options_of(seed=-5, top_k=40, top_p=0.95), 1000), logits, 8) == [
        385,
        968,
        483,
        93,
        287,
        96,
        581,
        289,
    ]


def test_without_a_seed_every_answer_differs() -> None:
    logits = np.zeros(100_000, np.float32)
    assert len({Sampler(options_of(seed=None), logits.size).choose(logits) for _ in range(8)}) > 1


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("temperature", [0.0, 0.001, 0.7])
def test_what_is_not_allowed_is_never_chosen(filters: dict[str, Any], temperature: float) -> None:
    logits = logits_of(300)
    for share in (0.01, 0.1, 0.5, 0.99):
        mask = np.random.default_rng(1).random(300) < share
        mask[logits.argmax()] = False
        chosen = draws(Sampler(options_of(**{**filters, "temperature": temperature}), 300), logits, 50, mask)
        assert mask[chosen].all()


def test_where_nothing_is_allowed_the_error_says_so() -> None:
    with pytest.raises(InputError, match="allows no token"):
        Sampler(options_of(), 9).choose(np.zeros(9, np.float32), np.zeros(9, np.bool_))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("given", [{}, {"temperature": 0.0}, {"top_k": 3}, {"min_p": 0.1}])
@pytest.mark.filterwarnings("error")
def test_logits_that_are_no_numbers_are_the_engines_fault(bad: float, given: dict[str, Any]) -> None:
    logits = logits_of(5000)
    logits[4321] = bad
    with pytest.raises(EngineError, match="not numbers"):
        Sampler(options_of(**given), 5000).choose(logits)


def test_a_vocabulary_that_is_all_impossible_is_the_engines_fault() -> None:
    with pytest.raises(EngineError, match="not numbers"):
        Sampler(options_of(), 5).choose(np.full(5, -np.inf, np.float32))


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.filterwarnings("error")
def test_impossible_tokens_are_no_trouble_at_any_temperature(filters: dict[str, Any]) -> None:
    logits = np.full(6000, -np.inf, np.float32)
    logits[[5, 700]] = 1e4, 1e4
    for temperature in (0.0, 0.001, 2.0):
        options = options_of(**{**filters, "temperature": temperature})
        assert set(draws(Sampler(options, 6000), logits, 20)) <= {5, 700}


@pytest.mark.parametrize(
    "given", [{}, {"presence_penalty": 1.0, "logit_bias": {2: 5}}, {"top_k": 3}, {"repetition_penalty": 2.0}]
)
def test_the_logits_stay_as_they_are(given: dict[str, Any]) -> None:
    logits = logits_of(200)
    logits.flags.writeable = False
    sampler = Sampler(options_of(**given), 200, prompt=[1, 2])
    before = logits.copy()
    for mask in (None, np.arange(200) > 3, np.arange(200) < 3):
        sampler.accept(sampler.choose(logits, mask))
    assert (logits == before).all()


def penalised(options: ChatOptions, logits: Array, prompt: Sequence[int], answer: Sequence[int]) -> Array:
    """By the definitions: CTRL's division; OpenAI's mu[j] - c[j] * frequency - (c[j] > 0) * presence; the bias."""
    scores = logits.copy()
    for token in {*prompt, *answer}:
        penalty = options.repetition_penalty
        scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    for token in set(answer):
        scores[token] -= answer.count(token) * options.frequency_penalty + options.presence_penalty
    for token, bias in options.logit_bias.items():
        scores[token] += bias
    return scores


@pytest.mark.parametrize(
    "given",
    [
        {"repetition_penalty": 1.3},
        {"frequency_penalty": 0.7},
        {"presence_penalty": -1.5},
        {"logit_bias": {3: 9.0, 50: -100.0}},
        {"repetition_penalty": 0.8, "frequency_penalty": -0.4, "presence_penalty": 0.4, "logit_bias": {7: 2.5}},
    ],
    ids=str,
)
def test_penalties_are_those_of_the_definitions_after_every_token(given: dict[str, Any]) -> None:
    options, random = options_of(temperature=0.0, **given), np.random.default_rng(4)
    prompt = random.integers(0, 150, 100).tolist()
    sampler, answer = Sampler(options, 150, prompt), list[int]()
    for turn in range(120):
        logits = logits_of(150, seed=turn)
        token = sampler.choose(logits)
        assert token == penalised(options, logits, prompt, answer).argmax()
        sampler.accept(token)
        answer.append(token)
    assert len(set(answer)) > 10


def test_a_bias_of_a_token_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="the token 100; the model has 100 tokens"):
        Sampler(options_of(logit_bias={100: 1.0}), 100)
