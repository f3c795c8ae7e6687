import pytest

from sottovoce.streaming.events import SpeechEnded
from sottovoce_compiler.report.stream_score import StreamScore, WordTiming, score_events, spread, text_of, words_of

from .stream_case import EVENTS, OFFLINE, at, committed, partial


def test_a_word_is_shown_with_the_partial_that_has_it_and_final_with_the_commit_that_holds_it() -> None:
    score = score_events(EVENTS, OFFLINE.ends, "en")
    assert score.timings == (
        WordTiming("and", 1.0, 1.2, 2.0),
        WordTiming("so", 1.5, 1.2, 2.0),
        WordTiming("my", 2.0, 2.1, 3.0),
        WordTiming("fellow", 2.5, 2.1, 3.0),
    )
    assert [timing.commit_delay for timing in score.timings] == pytest.approx([1.0, 0.5, 1.0, 0.5])
    assert [timing.shown_delay for timing in score.timings] == pytest.approx([0.2, -0.3, 0.1, -0.4])
    assert (score.words, score.rewritten) == (4, 0)


def test_a_word_that_was_never_partial_is_shown_as_it_is_committed() -> None:
    score = score_events(at((2.0, committed(" and so"))), OFFLINE.ends, "en")
    assert [(timing.shown, timing.committed) for timing in score.timings] == [(2.0, 2.0)] * 2


def test_a_word_at_another_place_than_its_final_one_is_not_yet_shown() -> None:
    events = at((1.0, partial(" so")), (1.4, partial(" and so")), (2.0, committed(" and so")))
    assert [timing.shown for timing in score_events(events, OFFLINE.ends, "en").timings] == [1.4, 1.4]


def test_case_and_punctuation_are_no_change() -> None:
    events = at((1.0, partial(" and, SO")), (2.0, partial(" And so.")), (3.0, committed(" And so,")))
    score = score_events(events, OFFLINE.ends, "en")
    assert score.rewritten == 0 and [timing.shown for timing in score.timings] == [1.0, 1.0]


def test_only_words_that_are_the_same_on_both_sides_have_a_delay() -> None:
    events = at((2.0, committed(" And see")), (3.0, committed(" my dear fellow")))
    score = score_events(events, OFFLINE.ends, "en")
    assert [timing.word for timing in score.timings] == ["and", "my", "fellow"] and score.words == 5


@pytest.mark.parametrize(
    ("shown", "rewritten"),
    [
        ([partial(" a b"), partial(" a b c"), committed(" a b c")], 0),
        ([partial(" a b c"), partial(" a x c"), committed(" a x c")], 2),  # from the first that differs on
        ([partial(" a b c"), partial(" a"), committed(" a")], 2),  # vanished at the end
        ([partial(" a b c"), partial("")], 3),
        ([partial(" a b c"), committed(" a b"), partial(" c"), committed(" c")], 0),
        ([partial(" a b c"), committed(" a b"), partial(" d"), committed(" d")], 1),
        ([partial(" a b c"), committed(" x")], 3),
        ([partial(" a b c"), committed(" a"), SpeechEnded(1.0)], 2),
        ([partial(" a b"), committed(" a b c d")], 0),
        ([partial(" a b")], 2),  # never became final
    ],
)
def test_words_that_readers_saw_and_no_longer_see_are_rewritten(shown: list[object], rewritten: int) -> None:
    events = at(*((float(time), event) for time, event in enumerate(shown)))  # type: ignore[misc]
    assert score_events(events, (), "en").rewritten == rewritten


def test_several_runs_are_pooled_by_words() -> None:
    one = StreamScore((WordTiming("a", 0.0, 0.5, 1.0),), 1, 1)
    three = StreamScore((WordTiming("b", 0.0, 1.0, 3.0),) * 3, 3, 0)
    both = one + three
    assert both.commit_delay is not None and both.commit_delay.mean == 2.5
    assert both.rewritten_per_word == 0.25


def test_percentiles_are_those_of_all_values_negative_ones_too() -> None:
    found = spread([float(value) for value in range(-50, 51)])
    assert found is not None
    assert (found.mean, found.p50, found.p90, found.p99) == pytest.approx((0, 0, 40, 49))
    assert spread([]) is None and StreamScore().rewritten_per_word is None


def test_characters_are_the_words_of_a_language_without_spaces() -> None:
    events = at((1.0, partial("客観")), (2.0, committed("客観的。")))
    score = score_events(events, [("客観", 0.5), ("的", 0.9)], "ja")
    assert [(timing.end, timing.shown) for timing in score.timings] == [(0.5, 1.0), (0.5, 1.0), (0.9, 2.0)]


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("Don't, well-known!", "en", ["dont", "well", "known"]),
        ("twenty one 21", "en", ["twenty", "one", "21"]),  # numbers stay as many words as they are
        ("नमस्ते दुनिया", "hi", ["नमस्ते", "दुनिया"]),
        (" — ", "en", []),
    ],
)
def test_words_lose_case_and_punctuation_and_keep_their_number(text: str, language: str, words: list[str]) -> None:
    assert words_of(text, language) == words


def test_the_transcript_is_all_that_was_committed() -> None:
    assert text_of(EVENTS) == "And so, my fellow"
