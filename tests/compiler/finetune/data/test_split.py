"""Which examples are kept to measure on."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.split import by_file, by_seed


def examples(*contents: int) -> list[Example]:
    return [Example.of([7, content], [False, True], line) for line, content in enumerate(contents, start=1)]


def ids(part: tuple[Example, ...]) -> list[int]:
    return [int(example.ids[1]) for example in part]


@given(
    st.lists(st.integers(0, 30), max_size=60),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_a_split_depends_on_the_seed_and_not_on_the_order(
    contents: list[int], fraction: float, seed: int, shuffling: random.Random
) -> None:
    split = by_seed(examples(*contents), fraction, seed)
    assert sorted(ids(split.train) + ids(split.eval)) == sorted(contents)
    assert not set(ids(split.train)) & set(ids(split.eval))  # duplicates are on one side
    assert len(split.eval) <= max(1, round(fraction * len(contents)))
    assert not contents or split.train
    shuffled = contents[:]
    shuffling.shuffle(shuffled)
    assert sorted(ids(by_seed(examples(*shuffled), fraction, seed).eval)) == sorted(ids(split.eval))


def test_without_duplicates_the_fraction_is_kept_exactly_and_in_order() -> None:
    split = by_seed(examples(*range(200)), 0.1, 3)
    assert len(split.eval) == 20 and split.repeated == 0
    assert ids(split.eval) == sorted(ids(split.eval)) and ids(split.train) == sorted(ids(split.train))


def test_other_seeds_give_other_splits() -> None:
    kept = {tuple(ids(by_seed(examples(*range(100)), 0.1, seed).eval)) for seed in range(5)}
    assert len(kept) == 5


def test_one_example_at_least_is_kept_where_there_are_two() -> None:
    assert len(by_seed(examples(1, 2), 0.01, 0).eval) == 1
    assert len(by_seed(examples(1), 0.5, 0).eval) == 0
    assert len(by_seed(examples(1, 2, 3), 0.0, 0).eval) == 0


def test_repeated_examples_of_train_are_counted() -> None:
    assert by_seed(examples(1, 1, 1, 2, 2), 0.0, 0).repeated == 3


def test_what_is_in_the_eval_file_is_not_learned() -> None:
    split = by_file(examples(1, 2, 2, 3, 3), examples(2, 4, 4))
    assert ids(split.train) == [1, 3, 3] and ids(split.eval) == [2, 4, 4]
    assert (split.shared, split.repeated) == (2, 1)


def test_a_fraction_of_all_is_refused() -> None:
    with pytest.raises(ValueError, match="fraction 1"):
        by_seed(examples(1), 1, 0)
