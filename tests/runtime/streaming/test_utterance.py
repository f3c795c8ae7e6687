import pytest

from sottovoce.streaming.listener import HeardWord, Hypothesis
from sottovoce.streaming.utterance import Language, Utterance
from sottovoce.types import Word


def words(*spans: tuple[float, float], text: str = " w", first: int = 0) -> list[HeardWord]:
    """One token each, numbered."""
    return [HeardWord(Word(a, b, text, 0.9), (first + i,)) for i, (a, b) in enumerate(spans)]


def settled(*spans: tuple[float, float], text: str = " w") -> Utterance:
    utterance = Utterance()
    utterance.settle(words(*spans, text=text), "en")
    return utterance


# -- what is settled -----------------------------------------------------------------------------------------------


def test_what_is_settled_is_said_in_order_with_its_text_and_language() -> None:
    utterance = Utterance()
    first = utterance.settle(words((0.5, 0.8), (0.9, 1.2)), "de")
    assert (first.text, first.language, len(first.words)) == (" w w", "de", 2)
    utterance.settle(words((1.3, 1.5), first=2), "de")
    assert utterance.tokens == [0, 1, 2] and utterance.end == round(1.5 * 16_000)


def test_times_never_go_back_however_they_are_heard() -> None:
    utterance = Utterance()
    said = utterance.settle(words((1.0, 2.0), (1.5, 1.8), (0.2, 0.3), (1.9, 2.5)), "en").words
    assert [(word.start, word.end) for word in said] == [(1.0, 2.0), (2.0, 2.0), (2.0, 2.0), (2.0, 2.5)]
    utterance.clear()
    (after,) = utterance.settle(words((2.1, 2.2)), "en").words
    assert (after.start, after.end) == (2.5, 2.5), "not even when the window begins anew"


def test_a_cleared_utterance_has_no_tokens_and_keeps_its_end() -> None:
    utterance = settled((1.0, 2.0))
    utterance.clear()
    assert utterance.tokens == [] and utterance.end == 32_000


# -- where to let go -----------------------------------------------------------------------------------------------


def test_the_cut_is_in_the_longest_pause() -> None:
    utterance = settled((0, 1), (1.1, 2), (2.1, 3), (3.8, 5), (5.1, 6))
    assert utterance.best_cut(0.0, 2.0) == pytest.approx(3.4)


def test_no_cut_is_earlier_than_allowed() -> None:
    utterance = settled((0, 1), (2.0, 3), (3.1, 4), (4.1, 5))
    assert utterance.best_cut(0.0, 4.0) == pytest.approx(1.5)
    assert utterance.best_cut(3.0, 4.0) == pytest.approx(4.05)


def test_of_equal_pauses_the_one_near_the_wanted_place_is_taken() -> None:
    utterance = settled(*[(float(i), i + 0.9) for i in range(10)])
    assert utterance.best_cut(0.0, 4.9) == pytest.approx(4.95)
    assert utterance.best_cut(0.0, 8.0) == pytest.approx(7.95)


@pytest.mark.parametrize("end", [".", "?", "!", "。"])
def test_the_end_of_a_sentence_is_worth_a_pause(end: str) -> None:
    utterance = settled((0, 1), (1.2, 2), (2.1, 3))
    assert utterance.best_cut(0.0, 1.6) == pytest.approx(1.1)
    utterance = Utterance()
    utterance.settle([*words((0, 1)), *words((1.2, 2), text=f" w{end}"), *words((2.1, 3))], "en")
    assert utterance.best_cut(0.0, 1.6) == pytest.approx(2.05)


def test_without_two_words_there_is_no_place_to_cut() -> None:
    assert Utterance().best_cut(0.0, 1.0) is None
    assert settled((1.0, 2.0)).best_cut(0.0, 1.0) is None
    assert settled((1.0, 2.0), (2.2, 3.0)).best_cut(2.5, 3.0) is None


def test_words_before_the_cut_are_let_go_and_those_behind_it_stay() -> None:
    utterance = settled((0, 1), (1.1, 2), (2.1, 3))
    utterance.forget_before(2.05)
    assert utterance.tokens == [2] and utterance.end == 48_000
    utterance.forget_before(2.3)
    assert utterance.tokens == [2], "the larger part is still there"
    utterance.forget_before(2.8)
    assert utterance.tokens == []


# -- language ------------------------------------------------------------------------------------------------------


def told(**shares: float) -> Hypothesis:
    return Hypothesis((), max(shares, key=lambda code: shares[code]), False, dict(shares))


def test_a_language_that_is_given_stays() -> None:
    language = Language("de")
    assert language.fixed == "de"
    language.settle("de")
    language.new_speech()
    assert language.fixed == "de" and language.heard(Hypothesis((), "de", False), 1.0) == "de"


def test_a_language_is_open_until_something_is_settled_in_it_and_again_with_new_speech() -> None:
    language = Language(None)
    assert language.fixed is None
    assert language.heard(told(en=0.6, de=0.4), 2.0) == "en"
    assert language.fixed is None
    language.settle("en")
    assert language.fixed == "en"
    language.new_speech()
    assert language.fixed is None


def test_the_newest_hypothesis_of_one_stretch_decides_alone() -> None:
    language = Language(None)
    assert language.heard(told(en=0.9, de=0.1), 1.0) == "en"
    assert language.heard(told(en=0.4, de=0.6), 2.0) == "de"


def test_after_a_pause_what_was_spoken_before_outweighs_a_doubt_and_yields_to_evidence() -> None:
    language = Language(None)
    language.heard(told(en=0.95, de=0.05), 5.0)
    language.new_speech()
    assert language.heard(told(de=0.6, en=0.4), 0.5) == "en"
    assert language.heard(told(de=0.6, en=0.4), 10.0) == "de"
    assert language.heard(told(de=0.98, en=0.02), 1.5) == "de"


def test_what_was_said_long_ago_counts_less_than_what_came_after_it() -> None:
    language = Language(None)
    for shares in ({"en": 1.0, "de": 0.0}, {"en": 0.0, "de": 1.0}):
        language.heard(told(**shares), 8.0)
        language.new_speech()
    assert language.heard(told(en=0.5, de=0.5), 1.0) == "de"


def test_a_model_of_one_language_speaks_it() -> None:
    assert Language(None).heard(Hypothesis((), "en", False), 1.0) == "en"


def test_the_first_word_begins_no_sooner_than_the_speech() -> None:
    utterance = Utterance()
    utterance.begins(0.5)
    committed = utterance.settle([HeardWord(Word(0.2, 0.8, " Now", 0.9), (7,))], "en")
    assert (committed.words[0].start, committed.words[0].end) == (0.5, 0.8)
