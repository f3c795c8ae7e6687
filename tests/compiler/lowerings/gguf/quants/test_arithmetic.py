"""Arithmetic over columns against the scalar loop that it stands for."""

import numpy as np
import pytest

from sottovoce_compiler.lowerings.gguf.quants.arithmetic import (
    inverse,
    low_byte,
    lowest,
    nearest,
    peak,
    sum_down,
    sum_from_first,
    tiles,
)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize("blocks", [1, 2, 3, 8, 64, 1000])
@pytest.mark.parametrize("n", [8, 16, 32, 256, 640])
def test_a_sum_is_rounded_after_every_value_in_order(n: int, blocks: int) -> None:
    values = np.random.default_rng(n + blocks).standard_t(1, (n, blocks)).astype(np.float32)
    wanted = np.zeros(blocks, np.float32)
    for row in values:
        wanted = wanted + row
    assert sum_down(values).tobytes() == wanted.tobytes()
    assert sum_from_first(values).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("blocks", [1, 2])
def test_negative_zeros_sum_to_zero_or_stay_negative_from_the_first(blocks: int) -> None:
    values = np.full((4, blocks), -0.0, np.float32)
    assert not np.signbit(sum_down(values)).any()
    assert np.signbit(sum_from_first(values)).all()


def test_halves_round_to_even_and_what_is_out_of_range_wraps() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 3.4999, np.nan, np.inf], np.float32)
    assert nearest(values).tolist() == [0, 2, 2, 0, -2, 3, 0, -4194304]


def test_a_byte_of_what_no_integer_holds_is_zero() -> None:
    values = np.array([3.9, -1.2, 255.0, np.nan, np.inf, -np.inf, 1e20], np.float32)
    assert low_byte(values).tolist() == [3, 255, 255, 0, 0, 0, 0]


def test_of_equal_magnitudes_the_first_is_the_peak() -> None:
    assert peak(column(1, -2, 2)) == -2
    assert peak(column(1, 2, -2)) == 2
    assert not np.signbit(peak(column(-0.0, -0.0)))[0]


def test_of_zeros_the_first_is_the_lowest() -> None:
    assert np.signbit(lowest(column(3, -0.0, 0.0)))[0]
    assert not np.signbit(lowest(column(3, 0.0, -0.0)))[0]


def test_nothing_inverted_is_nothing() -> None:
    with np.errstate(all="ignore"):
        assert inverse(np.array([4, 0, -0.0], np.float32)).tolist() == [0.25, 0, 0]


def test_tiles_cover_every_block_once() -> None:
    assert tiles(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert tiles(0, 2) == []
