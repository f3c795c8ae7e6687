"""Which words stay: each rule alone, whatever its constants are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.streaming.listener import HeardWord
from sottovoce.streaming.policy import Settling, plain
from sottovoce.types import Word

HOLD_BACK = 0.5
OFTEN = 10  # hypotheses that say the same: more than any word needs
PROBABILITIES = [1.0, 0.9, 0.6, 0.1]


def heard(text: str, probability: float = 0.99) -> list[HeardWord]:
    """Words of 0.4 s, two in a second, from the start of the stream on."""
    return [
        HeardWord(Word(i / 2, i / 2 + 0.4, f" {word}", probability), (i,)) for i, word in enumerate(text.split(" "))
    ]


def policy(*texts: str) -> Settling:
    """One that has been told of these hypotheses."""
    settling = Settling(HOLD_BACK)
    for text in texts:
        settling.add(heard(text))
    return settling


def often(probability: float) -> int:
    """How many hypotheses must say the same before a word of this probability is settled."""
    words = heard("a b", probability)
    return next(n for n in range(1, OFTEN) if policy(*["a b"] * n).count(words, 60.0, quiet=False))


def test_words_are_settled_from_the_first_on_up_to_one_that_ended_too_late() -> None:
    settling = policy(*["a b c d e f"] * OFTEN)
    ends = [one.word.end for one in heard("a b c d e f")]
    for count, end in enumerate(ends[:-1], 1):
        assert settling.count(heard("a b c d e f"), end + HOLD_BACK - 0.01, quiet=False) == count - 1
        assert settling.count(heard("a b c d e f"), end + HOLD_BACK + 0.01, quiet=False) == count


def test_a_word_behind_one_that_is_not_settled_waits_for_it() -> None:
    words = heard("a b c d")
    words[1] = HeardWord(Word(0.5, 3.9, " b", 0.99), (1,))
    assert policy(*["a b c d"] * OFTEN).count(words, 4.0, quiet=True) == 1


def test_the_less_sure_a_word_is_the_longer_it_waits() -> None:
    waits = []
    for probability in PROBABILITIES:
        settling, words = policy(*["a b"] * OFTEN), heard("a b", probability)
        waits.append(next(t for t in range(1000) if settling.count(words, 0.4 + t / 100, quiet=False)))
    assert waits[0] == pytest.approx(100 * HOLD_BACK, abs=1)
    assert waits == sorted(waits) and waits[0] < waits[-1]


def test_the_less_sure_a_word_is_the_more_hypotheses_must_agree_on_it() -> None:
    counts = [often(probability) for probability in PROBABILITIES]
    assert counts == sorted(counts) and counts[0] >= 2


def test_a_word_that_is_heard_for_the_first_time_is_not_settled_while_somebody_speaks() -> None:
    assert policy("a b c").count(heard("a b c"), 60.0, quiet=False) == 0
    assert policy("a b c").count(heard("a b c"), 60.0, quiet=True) == 3


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_a_word_is_settled_when_the_hypotheses_before_said_the_same(probability: float) -> None:
    texts, words = ["a x c"] + ["a b c d"] * (often(probability) - 1), heard("a b c d", probability)
    assert policy(*texts).count(words, 60.0, quiet=False) == 1, "only the first is the same in all of them"
    assert policy(*texts, "a b c d").count(words, 60.0, quiet=False) == 3


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_a_word_that_was_missing_before_is_not_agreed_on(probability: float) -> None:
    texts = ["a"] + ["a b c"] * (often(probability) - 1)
    assert policy(*texts).count(heard("a b c", probability), 60.0, quiet=False) == 1


def test_case_and_punctuation_are_no_disagreement() -> None:
    settling = policy(*["Well a b", "well, A b."] * OFTEN)
    assert settling.count(heard("well, A b."), 60.0, quiet=False) == 2
    assert plain(" It's,") == plain("its") and plain("Ärger!") == "ärger" and plain("—") == ""


def test_the_last_word_waits_for_the_next_one_unless_there_is_a_pause() -> None:
    settling = policy(*["a b c"] * 10)
    assert settling.count(heard("a b c"), 60.0, quiet=False) == 2
    assert settling.count(heard("a b c"), 60.0, quiet=True) == 3


def test_in_a_pause_the_distance_still_counts() -> None:
    settling, words = policy(*["a b"] * 10), heard("a b")
    assert settling.count(words, words[-1].word.end + HOLD_BACK - 0.01, quiet=True) == 1


def test_what_was_settled_is_no_part_of_later_hypotheses() -> None:
    settling = policy(*["a b c d"] * OFTEN)
    settling.settle(2)
    settling.add(heard("c d e"))
    assert settling.count(heard("c d e"), 60.0, quiet=False) == 2, "c and d were heard all the time"


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_a_hypothesis_that_began_otherwise_does_not_count_after_settling(probability: float) -> None:
    settling, words = policy(*["x y c d"] * OFTEN, "a b c d"), heard("c d e", probability)
    settling.settle(2)  # in a pause
    for heard_before in range(1, often(probability)):  # the newest one that was settled in is one of them
        assert settling.count(words, 60.0, quiet=False) == 0, heard_before
        settling.add(words)
    assert settling.count(words, 60.0, quiet=False) == 2


def test_after_a_reset_agreement_begins_anew() -> None:
    settling = policy(*["a b c"] * 10)
    settling.reset()
    settling.add(heard("a b c"))
    assert settling.count(heard("a b c"), 60.0, quiet=False) == 0


def test_no_words_settle_nothing() -> None:
    for quiet in (False, True):
        assert Settling(HOLD_BACK).count([], 60.0, quiet) == 0
        assert policy("").count([], 60.0, quiet) == 0


@given(st.lists(st.text("ab ", max_size=7), max_size=8), st.floats(0, 5), st.booleans())
def test_more_audio_never_settles_fewer_words_and_never_more_than_there_are(
    texts: list[str], now: float, quiet: bool
) -> None:
    settling, words = policy(*texts, "a b a b"), heard("a b a b")
    count = settling.count(words, now, quiet)
    assert 0 <= count <= settling.count(words, now + 0.5, quiet) <= len(words)
