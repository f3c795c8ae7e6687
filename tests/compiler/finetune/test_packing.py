"""Bins of whole examples: each once, none too full, the same in every process; and the tensors of a micro-batch."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_compiler.finetune import packing
from sottovoce_compiler.finetune.batches import IGNORED
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.packing import (
    Plan,
    bins_of,
    collate,
    epoch_batches,
    group,
    pack,
    pays,
    statistics,
    steps_in,
)

LENGTHS = st.lists(st.integers(1, 50), max_size=200)
SIZES = st.integers(1, 60)


@given(LENGTHS, SIZES, st.integers(0, 3), st.integers(0, 3), st.booleans(), st.integers(1, 20))
def test_every_example_is_in_one_bin_and_no_bin_is_too_full(
    lengths: list[int], size: int, seed: int, epoch: int, packed: bool, buffer: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BUFFER", buffer)
        bins = bins_of(lengths, size, seed, epoch, packed)
        assert bins == bins_of(lengths, size, seed, epoch, packed)
    assert sorted(index for one in bins for index in one) == list(range(len(lengths)))
    for one in bins:
        assert one
        assert len(one) == 1 or sum(lengths[index] for index in one) <= size


@given(LENGTHS, SIZES)
def test_packing_wastes_less_than_half(lengths: list[int], size: int) -> None:
    bins = pack(lengths, size, 0)
    sums = sorted(sum(lengths[index] for index in one) for one in bins)
    # Two bins of one buffer that fit one would have been one; each buffer may leave one such bin.
    if sum(lengths) <= packing.BUFFER * size:
        assert len(sums) < 2 or sums[0] + sums[1] > size


@given(
    LENGTHS,
    st.integers(1, 60),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
    st.integers(1, 4),
)
def test_processes_see_at_each_step_what_one_process_sees(
    lengths: list[int], size: int, accumulation: int, seed: int, epoch: int, packed: bool, world: int
) -> None:
    def plan(accumulation: int, rank: int, world: int) -> Plan:
        return epoch_batches(lengths, size, accumulation, seed, epoch, rank, world, packing=packed)

    alone = plan(world * accumulation, 0, 1)
    ranks = [plan(accumulation, rank, world) for rank in range(world)]
    assert len(alone) == steps_in(lengths, size, world * accumulation, seed, epoch, packing=packed)
    assert all(one for step in alone for one in step)  # a process alone has nothing empty
    for number, step in enumerate(alone):
        shares = [plan_of_rank[number] for plan_of_rank in ranks]
        assert len({len(share) for share in shares}) == 1 and 1 <= len(shares[0]) <= accumulation
        given = [one for share in shares for one in share]
        assert Counter(one for one in given if one) == Counter(step)
        assert given.count(()) < world
    assert {len(one) for one in ranks} == {len(alone)}


def test_epochs_and_seeds_have_other_orders() -> None:
    lengths = [3, 5, 2, 8, 1, 9, 4] * 5
    orders = {pack(lengths, 10, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert len({group(lengths, 10, seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_bins_do_not_come_in_order_of_length() -> None:
    lengths = list(range(1, 401))
    first = [max(lengths[index] for index in one) for one in pack(lengths, 400, 0)]
    assert first != sorted(first, reverse=True)
    half = len(first) // 2
    assert abs(sum(first[:half]) / half - sum(first[half:]) / (len(first) - half)) < 80


def test_what_one_buffer_leaves_is_taken_to_the_next() -> None:
    lengths = [6] * 50 + [4] * 50

    def alone(seed: int) -> int:
        order = packing._shuffled(len(lengths), seed, 0)
        return sum(len(packing._best_fit(order[start : start + 2], lengths, 10)) for start in range(0, 100, 2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BUFFER", 1)  # of two examples
        assert all(len(pack(lengths, 10, seed)) < alone(seed) for seed in range(10))


def test_an_example_longer_than_a_bin_has_one_of_its_own() -> None:
    assert sorted(map(len, pack([30, 4, 4], 10, 0))) == [1, 2]
    assert all(len(one) == 1 for one in group([30, 4, 4], 10, 0))


def test_unpacked_batches_have_as_many_examples_as_the_longest_leaves_room_for() -> None:
    assert Counter(map(len, group([2, 3, 4] * 4, 13, 0))) == {3: 4}
    assert Counter(map(len, group([2, 3, 4] * 4 + [1], 13, 0))) == {3: 4, 1: 1}


@pytest.mark.parametrize(
    ("lengths", "size", "use", "reason"),
    [
        ([], 64, False, "no packing: there are no examples"),
        ([8, 8, 8, 8] * 20, 64, False, "all lengths are about equal (8 to 8 tokens)"),
        ([97, 98, 100, 99] * 20, 1000, False, "all lengths are about equal (97 to 100 tokens)"),
        ([100] * 50 + [20, 20], 64, False, "it would take 51 micro-batches of up to 64 tokens in place of 52 of 1 ex"),
        ([100, 40, 90, 35] * 9, 60, False, "no two examples fit 60 tokens together"),
        ([60, 5, 7, 9, 3, 30] * 20, 64, True, "packing: 37 micro-batches of up to 64 tokens in place of 120 of 1"),
    ],
)
def test_packing_is_off_where_it_does_not_pay_and_says_why(
    lengths: list[int], size: int, use: bool, reason: str
) -> None:
    decision = pays(lengths, size)
    assert decision.use is use
    assert reason in decision.reason


def test_statistics_say_how_full_bins_are_and_what_padding_would_take() -> None:
    lengths = [2, 4, 6, 8]
    found = statistics(lengths, [(3, 0), (2, 1)], 10)
    assert (found.examples, found.tokens, found.bins, found.mean_length, found.fill) == (4, 20, 2, 5.0, 1.0)
    assert found.saved in {1 - 20 / (2 * a + 2 * 8) for a in (4, 6)}  # whichever two a padded batch would hold
    assert "4 examples of 5 tokens on average in 2 micro-batches, 100% full" in str(found)
    assert statistics([30], [(0,)], 10).fill == 1.0
    assert statistics([], [], 10).fill == 0.0 == statistics([], [], 10).saved


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="bins of 0 tokens"):
        pack([1], 0, 0)
    with pytest.raises(ValueError, match="examples of 0 or more"):
        group([0], 5, 0)
    for accumulation, rank, world in ((0, 0, 1), (1, 2, 2), (1, -1, 2)):
        with pytest.raises(ValueError, match="accumulation"):
            epoch_batches([1], 5, accumulation, 0, 0, rank, world)


EXAMPLES = [
    Example.of([10, 11, 12, 13], [False, False, True, True], 4),
    Example.of([20], [True], 9),
    Example.of([30, 31, 32], [True, True, False], 2),
]


def test_labels_are_what_follows_and_nothing_reaches_over_examples() -> None:
    batch = collate(EXAMPLES)
    assert batch.tokens.tolist() == [10, 11, 12, 13, 20, 30, 31, 32]
    assert batch.labels.tolist() == [IGNORED, 12, 13, IGNORED, IGNORED, 31, IGNORED, IGNORED]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 0, 1, 2]
    assert batch.segments.lengths == (4, 1, 3) and batch.segments.offsets.tolist() == [0, 4, 5, 8]
    assert batch.examples == (4, 9, 2)
    assert {one.dtype for one in (batch.tokens, batch.labels, batch.positions)} == {torch.int64}
    assert batch.labelled == 3 == sum(example.labelled for example in EXAMPLES)


def test_a_bin_without_examples_is_a_token_of_which_nothing_is_learned() -> None:
    batch = collate(())
    assert batch.tokens.tolist() == [0] and batch.labels.tolist() == [IGNORED]
    assert batch.segments.lengths == (1,) and batch.labelled == 0 and batch.examples == ()


def test_a_batch_is_made_on_the_device_that_is_asked_for() -> None:
    batch = collate(EXAMPLES, "meta")
    assert {one.device.type for one in (batch.tokens, batch.labels, batch.positions, batch.segments.offsets)} == {
        "meta"
    }


def test_collating_does_not_share_memory_with_examples() -> None:
    batch = collate(EXAMPLES)
    batch.tokens.zero_()
    batch.labels.zero_()
    assert EXAMPLES[0].ids.tolist() == [10, 11, 12, 13]
