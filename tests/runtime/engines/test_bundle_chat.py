"""A run is cut into parts, each of which computes what is wanted of it and one position at least."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.engines.bundle_chat import parts_of


@given(st.data(), st.integers(1, 700), st.integers(1, 300))
def test_parts_cover_all_tokens_and_exactly_the_outputs(data: st.DataObject, tokens: int, size: int) -> None:
    outputs = data.draw(st.integers(1, tokens))
    wanted, covered = [], []
    for part, positions, are_wanted in parts_of(tokens, outputs, size):
        covered += range(part.start, part.stop)
        assert 0 < part.stop - part.start <= size
        assert positions.size and positions.min() >= 0 and positions.max() < part.stop - part.start
        if are_wanted:
            wanted += list(part.start + positions)
    assert covered == list(range(tokens))
    assert wanted == list(range(tokens - outputs, tokens))


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_part_of_which_nothing_is_wanted_computes_its_last_position(outputs: int) -> None:
    first = parts_of(20, outputs, 8)[0]
    assert not first[2] and np.array_equal(first[1], [7])
