"""Token ids, and which of them are learned."""

import pytest

from sottovoce_compiler.finetune.data.example import Example


def test_the_first_token_counts_as_learned_by_nobody() -> None:
    assert Example.of([5, 6, 7], [True, True, False], 1).labelled == 1


def test_the_last_answer_is_the_last_run_of_learned_tokens() -> None:
    example = Example.of([1, 2, 3, 4, 5, 6], [False, True, False, True, True, False], 1)
    asked, answered = example.last_answer()
    assert (asked.tolist(), answered.tolist()) == ([1, 2, 3], [4, 5])
    asked, answered = Example.of([1, 2], [True, True], 1).last_answer()
    assert (asked.tolist(), answered.tolist()) == ([], [1, 2])
    asked, answered = Example.of([1, 2], [False, False], 1).last_answer()
    assert (asked.tolist(), answered.tolist()) == ([1, 2], [])


def test_digests_tell_apart_what_is_learned_from_what() -> None:
    one = Example.of([1, 2, 3], [False, True, True], 1)
    assert one.digest() == Example.of([1, 2, 3], [False, True, True], 9).digest()
    others = [Example.of([1, 2, 4], [False, True, True], 1), Example.of([1, 2, 3], [False, False, True], 1)]
    digests = {other.digest() for other in (one, *others)} | {one.digest(b"salt")}
    assert len(digests) == 4


def test_marks_that_are_not_as_many_as_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="2 ids and 1 marks"):
        Example.of([1, 2], [True], 1)
