import numpy as np
import pytest
from scripted_engine import TOKENS, at

from sottovoce.segments import Cut, cut_segments, timed_words
from sottovoce.tokens import TokenTable


def test_pairs_of_times_make_segments() -> None:
    ids = [at(0.2), 1, 2, at(1.5), at(2.0), 3, at(3.0)]
    assert cut_segments(ids, TOKENS, 9.0) == [Cut(0.2, 1.5, 0, 2, True), Cut(2.0, 3.0, 2, 3, True)]


def test_words_after_the_last_time_last_until_the_audio_ends() -> None:
    assert cut_segments([at(0.2), 1, 2], TOKENS, 9.0) == [Cut(0.2, 9.0, 0, 2, False)]
    assert cut_segments([at(0.0), 1, at(1.0), at(1.0), 2], TOKENS, 9.0)[-1] == Cut(1.0, 9.0, 1, 2, False)


def test_a_time_alone_between_words_ends_one_segment_and_begins_another() -> None:
    first, second = cut_segments([at(0.0), 1, at(2.0), 2, at(4.0)], TOKENS, 9.0)
    assert (first.end, first.closed, second) == (2.0, False, Cut(2.0, 4.0, 1, 2, True))


def test_without_times_the_whole_piece_is_one_segment() -> None:
    assert cut_segments([1, 2, 3], TOKENS, 4.5) == [Cut(0.0, 4.5, 0, 3, False)]


def test_times_beyond_the_audio_are_its_end() -> None:
    assert cut_segments([at(0.0), 1, at(20.0)], TOKENS, 4.5) == [Cut(0.0, 4.5, 0, 1, True)]
    assert cut_segments([at(20.0), 1, at(25.0)], TOKENS, 4.5) == [Cut(4.5, 4.5, 0, 1, True)]


@pytest.mark.parametrize("ids", [[], [at(0.0)], [at(0.0), at(3.0)]])
def test_times_without_words_are_no_segment(ids: list[int]) -> None:
    assert cut_segments(ids, TOKENS, 4.5) == []


TABLE = TokenTable([b" one", b" two", b",", b" three", b"ly"], 5)


def words(text: list[int], times: list[float], logprobs: list[float] | None = None):
    logprobs = logprobs or [0.0] * len(text)
    return timed_words(text, logprobs, np.array(times), TABLE, "en", lambda seconds: round(seconds + 10, 3))


def test_a_word_lasts_from_its_first_token_to_the_next_words() -> None:
    found = words([0, 2, 3, 4], [0.5, 0.9, 1.0, 1.4, 1.8])
    assert [(at, word.start, word.end, word.word) for at, word in found] == [
        (0, 10.5, 10.9, " one,"),  # the comma is the pause
        (2, 11.0, 11.8, " threely"),
    ]


def test_a_words_probability_is_the_geometric_mean_of_its_tokens() -> None:
    ((_, word),) = words([3, 4], [0, 0.1, 0.2], [np.log(0.9), np.log(0.4)])
    assert word.probability == pytest.approx(0.6, abs=1e-4)


def test_a_word_does_not_last_through_a_pause() -> None:
    (_, first), (_, second) = words([0, 1], [0.0, 6.0, 6.5])
    assert (first.start, first.end, second.start) == (10.0, 12.0, 16.0)


def test_no_text_is_no_words() -> None:
    assert words([], [0.0]) == []
