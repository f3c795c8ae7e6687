import math

import jiwer
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_compiler.report.score import ErrorCounts, bootstrap_interval, count_errors, total

WORDS = st.lists(st.sampled_from(["xylo", "yarrow", "quartz", "vex"]), max_size=8)


def test_each_kind_of_error_is_counted_as_what_it_is() -> None:
    assert count_errors("the cat sat", "the dog sat", "en") == ErrorCounts(substitutions=1, reference=3)
    assert count_errors("the cat sat", "the sat", "en") == ErrorCounts(deletions=1, reference=3)
    assert count_errors("the cat sat", "the cat sat down", "en") == ErrorCounts(insertions=1, reference=3)


@given(WORDS.filter(bool), WORDS)
def test_error_rates_are_those_of_jiwer(reference: list[str], hypothesis: list[str]) -> None:
    counts = count_errors(" ".join(reference), " ".join(hypothesis), "de")
    theirs = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    assert counts.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert counts.rate is not None and math.isclose(counts.rate, theirs.wer)


def test_punctuation_case_and_spelling_are_no_errors() -> None:
    assert count_errors("The colour, twenty one.", "the color 21", "en").errors == 0


def test_japanese_is_counted_in_characters() -> None:
    assert count_errors("客観的実在。", "客観的 実体", "ja") == ErrorCounts(substitutions=1, reference=5)


def test_an_empty_reference_has_no_rate_but_counts_what_was_said() -> None:
    counts = count_errors("", "thank you", "en")
    assert (counts.insertions, counts.rate) == (2, None)


def test_a_sum_weighs_clips_by_their_words_and_not_alike() -> None:
    both = total([ErrorCounts(substitutions=1, reference=1), ErrorCounts(reference=99)])
    assert both.rate == 0.01


def test_the_interval_holds_the_rate_and_is_the_same_every_time() -> None:
    counts = [ErrorCounts(substitutions=n % 3, reference=10) for n in range(30)]
    interval = bootstrap_interval(counts)
    assert interval is not None and interval == bootstrap_interval(counts)
    rate = total(counts).rate
    assert rate is not None and interval[0] < rate < interval[1]


def test_the_interval_is_narrower_with_more_clips() -> None:
    def width(clips: int) -> float:
        interval = bootstrap_interval([ErrorCounts(substitutions=n % 2, reference=5) for n in range(clips)])
        assert interval is not None
        return interval[1] - interval[0]

    assert width(100) < width(10) / 2


def test_one_clip_has_no_interval() -> None:
    assert bootstrap_interval([ErrorCounts(reference=5)]) is None
    assert bootstrap_interval([ErrorCounts(reference=5), ErrorCounts(insertions=3)]) is None
