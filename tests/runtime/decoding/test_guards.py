import random

import pytest

from sottovoce.decoding.guards import compression_ratio, loop_start, too_fast


def test_prose_compresses_little_and_a_loop_compresses_well() -> None:
    prose = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of folly."
    assert 1 < compression_ratio(prose) < 2.4
    assert compression_ratio("Thank you. " * 30) > 2.4
    assert compression_ratio("") == 0


@pytest.mark.parametrize(
    ("start", "phrase", "times"),
    [
        ([], [7], 16),
        ([1, 2, 3], [7], 17),
        ([1, 2, 3], [7, 8], 8),
        ([5], [7, 8, 9, 10], 4),
        ([5, 6], list(range(20, 28)), 3),
        ([5, 6], list(range(20, 52)), 3),
    ],
)
def test_a_phrase_that_comes_again_and_again_is_a_loop_and_is_kept_once(
    start: list[int], phrase: list[int], times: int
) -> None:
    assert loop_start([*start, *phrase * times]) == len(start) + len(phrase)


@pytest.mark.parametrize("extra", range(1, 5))
def test_a_loop_is_found_in_the_middle_of_its_phrase(extra: int) -> None:
    phrase = [6, 7, 8, 9, 10]
    assert loop_start([1, 2, *phrase * 4, *phrase[:extra]]) == 2 + len(phrase)


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [1],
        [1, 2, *[3, 4] * 3],  # "no, no, no,"
        [*[3, 4] * 5, 9],  # five times, and it went on
        [3] * 15,
        [*range(20, 27)] * 3,  # a refrain of seven tokens, three times
        [*range(20, 60)] * 2,
        [*range(20, 53)] * 3,  # a verse longer than any loop seen
    ],
)
def test_what_people_repeat_is_left_alone(tokens: list[int]) -> None:
    assert loop_start(tokens) is None


def test_random_tokens_are_no_loop() -> None:
    source = random.Random(0)
    assert all(loop_start([source.randrange(50) for _ in range(200)]) is None for _ in range(50))


def test_only_the_tail_counts() -> None:
    assert loop_start([*[7] * 40, 1, 2, 3]) is None


def test_nobody_says_a_sentence_in_no_time() -> None:
    sentence = "It was the best of times, it was the worst of times."
    assert too_fast(sentence, 0.5) and not too_fast(sentence, 1.5)
    assert not too_fast("Yes, of course.", 0.1), "short clips are cut close to their words"
