from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_engine import (
    DE,
    EN,
    END,
    NO_STAMPS,
    ORDINARY,
    STAMP,
    START,
    TOKENS,
    TRANSCRIBE,
    TRANSLATE,
    VOCABULARY,
    at,
)

from sottovoce.decoding.grammar import Grammar, Tokens, language_probabilities
from sottovoce.errors import BundleError, InputError

STEERING = range(END + 1, STAMP)


def allowed(done: list[int], logits: np.ndarray | None = None, **options: Any) -> set[int]:
    """The tokens that may follow `done`."""
    row = np.zeros((1, VOCABULARY), np.float32) if logits is None else logits[None].copy()
    if logits is None:
        row[0, STAMP:] = -20  # together less likely than any word: nothing is forced
    Grammar(TOKENS, options.pop("timestamps", True), **options).apply(row, [done])
    return set(np.flatnonzero(np.isfinite(row[0])).tolist())


def stamps(ids: set[int]) -> set[int]:
    return {token for token in ids if token >= STAMP}


def test_a_transcript_begins_with_a_time_in_its_first_second() -> None:
    assert allowed([]) == set(range(at(0.0), at(1.0) + 1))


def test_after_the_opening_time_come_words_and_no_second_time() -> None:
    assert not stamps(allowed([at(0.5)])) and {0, 1, END} <= allowed([at(0.5)])


def test_a_segment_closes_later_than_it_opened() -> None:
    found = allowed([at(0.5), 1, 2])
    assert stamps(found) == set(range(at(0.5) + 1, VOCABULARY)) and {1, END} <= found


def test_after_a_closing_time_another_segment_opens_at_once_or_the_transcript_ends() -> None:
    assert allowed([at(0.0), 1, at(2.0)]) == {END, *range(at(2.0), VOCABULARY)}


def test_times_never_go_back_over_several_segments() -> None:
    found = allowed([at(0.0), 1, at(2.0), at(3.0), 1])
    assert min(stamps(found)) == at(3.0) + 1


def test_nothing_comes_after_the_last_time_but_words_and_the_end() -> None:
    assert not stamps(allowed([at(0.0), 1, at(30.0), at(30.0), 1]))


@pytest.mark.parametrize(("each", "forced"), [(-7.0, True), (-8.0, False)])
def test_a_time_is_forced_when_all_of_them_together_are_likelier_than_any_word(each: float, forced: bool) -> None:
    logits = np.full(VOCABULARY, -3.0, np.float32)
    logits[2] = 0.0
    logits[STAMP:] = each  # log(1475) is 7.3
    found = allowed([at(0.5), 1], logits)
    assert (2 not in found) == forced and (END not in found) == forced and stamps(found)


def test_steering_tokens_are_never_chosen() -> None:
    for done in ([], [at(0.0)], [at(0.0), 1], [at(0.0), 1, at(1.0)]):
        assert not allowed(done) & set(STEERING)
        assert not allowed(done, timestamps=False) & set(STEERING)


def test_without_timestamps_no_time_is_chosen_and_no_transcript_begins_with_a_blank() -> None:
    assert allowed([], timestamps=False) == set(range(ORDINARY)) - {9, 8}
    assert allowed([1], timestamps=False) == {*range(ORDINARY), END} - {9}


def test_suppressed_tokens_are_those_of_the_model_those_given_or_both() -> None:
    words = set(range(ORDINARY))
    assert allowed([1], timestamps=False, suppress=(-1,)) & words == words - {9}
    assert allowed([1], timestamps=False, suppress=(3,)) & words == words - {3}
    assert allowed([1], timestamps=False, suppress=(-1, 3)) & words == words - {3, 9}
    assert allowed([1], timestamps=False, suppress=()) & words == words


def test_the_end_cannot_be_suppressed() -> None:
    assert END in allowed([1], timestamps=False, suppress=(END,))


def test_rows_are_judged_each_by_its_own_past() -> None:
    rows = [[], [at(0.5)], [at(0.5), 1, at(2.0)]]
    logits = np.zeros((3, VOCABULARY), np.float32)
    logits[:, STAMP:] = -20
    Grammar(TOKENS, True).apply(logits, rows)
    for row, done in zip(logits, rows, strict=True):
        assert set(np.flatnonzero(np.isfinite(row)).tolist()) == allowed(done)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.sampled_from([0.0, -3.0, -8.0]))
def test_the_rules_are_those_of_transformers(seed: int, length: int, stamp_level: float) -> None:
    """A random walk through what is allowed, with random logits at every step."""
    import torch
    from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

    config = SimpleNamespace(
        no_timestamps_token_id=NO_STAMPS, eos_token_id=END, bos_token_id=END, max_initial_timestamp_index=50
    )
    theirs = WhisperTimeStampLogitsProcessor(config, begin_index=3)
    random, done = np.random.default_rng(seed), []
    grammar = Grammar(replace(TOKENS, suppress=(), suppress_at_begin=()), True)
    for _ in range(length + 1):
        logits = random.normal(0, 2, (1, VOCABULARY)).astype(np.float32)
        logits[:, STAMP:] += stamp_level
        logits[:, STEERING] = -np.inf
        fed = torch.tensor([[START, EN, TRANSCRIBE, *done]])
        expected = theirs(fed, torch.from_numpy(logits.copy())).numpy()
        grammar.apply(logits, [done])
        np.testing.assert_array_equal(logits, expected)
        weights = np.exp(logits[0] - logits[0].max())
        token = int(random.choice(VOCABULARY, p=weights / weights.sum(dtype=np.float64)))
        if token == END:
            break
        done.append(token)


def test_language_probabilities_are_a_softmax_over_the_languages_alone_likeliest_first() -> None:
    logits = np.full(VOCABULARY, 50.0, np.float32)
    logits[EN], logits[DE] = 1.0, 2.0
    found = language_probabilities(logits, TOKENS)
    assert list(found) == ["de", "en"]
    assert found["de"] == pytest.approx(np.e / (1 + np.e)) and sum(found.values()) == pytest.approx(1)


def test_huge_logits_do_not_overflow_a_language_probability() -> None:
    logits = np.zeros(VOCABULARY, np.float32)
    logits[EN] = 3e38
    assert language_probabilities(logits, TOKENS) == {"en": 1.0, "de": 0.0}


def test_the_prompt_steers_language_task_and_times() -> None:
    assert TOKENS.prompt("de", "transcribe", timestamps=True) == [START, DE, TRANSCRIBE]
    assert TOKENS.prompt("en", "translate", timestamps=False) == [START, EN, TRANSLATE, NO_STAMPS]


def test_an_english_only_prompt_has_neither_language_nor_task() -> None:
    english = replace(TOKENS, languages={}, translate=None, transcribe=None)
    assert english.prompt("en", "transcribe", timestamps=True) == [START]
    with pytest.raises(InputError, match="English only"):
        english.prompt("en", "translate", timestamps=True)


def test_an_unknown_language_or_task_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="'xx' is not one of de, en"):
        TOKENS.prompt("xx", "transcribe", timestamps=True)
    with pytest.raises(InputError, match="'' is not one of de, en"):
        TOKENS.prompt("", "transcribe", timestamps=True)
    with pytest.raises(InputError, match="'sing' is not one of transcribe, translate"):
        TOKENS.prompt("en", "sing", timestamps=True)


def test_a_timestamp_token_is_a_multiple_of_20_ms() -> None:
    assert TOKENS.seconds(STAMP) == 0 and TOKENS.seconds(STAMP + 1500) == pytest.approx(30)


def generation(**changes: Any) -> dict[str, Any]:
    names = ("end", "start", "translate", "transcribe", "start_of_previous", "no_speech", "no_timestamps")
    tokens = {name: getattr(TOKENS, name) for name in names} | {"timestamp_begin": STAMP, "languages": {"en": EN}}
    return {"tokens": tokens | changes, "suppress": [9], "suppress_at_begin": [8, END]}


def test_a_manifests_tokens_are_read() -> None:
    found = Tokens.of(generation(), VOCABULARY)
    assert found == replace(TOKENS, languages={"en": EN})


@pytest.mark.parametrize("value", [-1, VOCABULARY, 1.0, "10", None, True])
@pytest.mark.parametrize("name", ["end", "start", "timestamp_begin", "no_speech"])
def test_a_token_that_is_no_id_of_the_vocabulary_is_refused(name: str, value: object) -> None:
    with pytest.raises(BundleError, match=name):
        Tokens.of(generation(**{name: value}), VOCABULARY)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"tokens": []},
        {**generation(), "suppress": None},
        {**generation(), "suppress": ["a"]},
        {**generation(), "suppress_at_begin": [VOCABULARY]},
        generation(languages=["en"]),
        generation(languages={"en": -1}),
    ],
)
def test_a_manifest_without_a_whole_grammar_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        Tokens.of(raw, VOCABULARY)
