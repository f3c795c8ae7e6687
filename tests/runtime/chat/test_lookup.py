import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from sottovoce.chat.lookup import PromptLookup


def fed(tokens: Sequence[int], most: int = 8) -> PromptLookup:
    return PromptLookup(most, tokens)


def draft(tokens: Sequence[int], most: int = 8) -> list[int]:
    """What is drafted after `tokens` by a lookup that was right so far."""
    lookup = fed(tokens, most)
    for _ in range(50):
        if lookup.draft(8):
            lookup.learn(1, 1)
    return list(lookup.draft(most))


def test_what_followed_the_last_tokens_before_is_the_draft() -> None:
    assert draft([1, 2, 3, 4, 5, 6, 7, 1, 2, 3], 4) == [4, 5, 6, 7]


def test_the_longest_match_counts_and_of_those_the_latest() -> None:
    assert draft([1, 2, 3, 4, 9, 3, 5, 1, 2, 3], 1) == [4]
    assert draft([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 1) == [5]


def test_without_a_match_there_is_no_draft() -> None:
    assert draft([1, 2, 3, 4]) == []
    assert draft([1]) == draft([]) == []


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 8))
def test_a_draft_always_stood_behind_the_last_token_before(tokens: list[int], most: int) -> None:
    found = draft(tokens, most)
    assert len(found) <= most
    assert not found or any(tokens[at : at + 1 + len(found)] == [tokens[-1], *found] for at in range(len(tokens) - 1))


def spent(answer: Sequence[int], prompt: Sequence[int], most: int = 8) -> tuple[int, int, int]:
    """Evaluations, tokens drafted and drafted rightly for an answer that is known."""
    lookup, at, runs, drafted, right = fed(prompt, most), 0, 0, 0, 0
    while at < len(answer):
        guess = list(lookup.draft(len(answer) - at - 1))
        hits = next((n for n, one in enumerate(guess) if one != answer[at + n]), len(guess))
        for token in answer[at : at + hits + 1]:
            lookup.append(token)
        at, runs, drafted, right = at + hits + 1, runs + 1, drafted + len(guess), right + hits
        if guess:
            lookup.learn(len(guess), hits)
    return runs, drafted, right


def test_an_answer_that_repeats_the_prompt_takes_a_fraction_of_the_evaluations() -> None:
    text = list(range(200))
    runs, drafted, right = spent(text, [*text, 999])
    assert runs < 60 and right > 0.9 * drafted


def test_where_drafts_are_wrong_few_are_made() -> None:
    """Few different tokens in random order: there is a match all the time, and it is worth nothing."""
    generator = random.Random(1)
    tokens = [generator.randrange(20) for _ in range(7000)]
    runs, drafted, right = spent(tokens[5000:], tokens[:5000])
    assert 0 < drafted - right < 0.07 * 2000
    assert runs + 0.4 * drafted < 1.03 * 2000


def test_after_a_bad_stretch_a_good_one_is_noticed() -> None:
    generator = random.Random(2)
    noise, text = [generator.randrange(20) for _ in range(1000)], list(range(100, 400))
    with_noise, _, _ = spent([*noise, *text, *text], [])
    assert with_noise < 1000 + 300 + 150
