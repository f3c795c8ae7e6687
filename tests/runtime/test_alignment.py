import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sottovoce.alignment import FRAME_SECONDS, token_times, warping_path


def cheapest(cost: np.ndarray) -> float:
    """The plain recurrence of Sakoe and Chiba, cell by cell."""
    total = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return float(total[-1, -1])


shapes = st.tuples(st.integers(1, 9), st.integers(1, 12))
costs = shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(-4, 4, width=16)))


@settings(max_examples=200, deadline=None)
@given(costs)
def test_the_path_is_as_cheap_as_the_double_loop_finds(cost: np.ndarray) -> None:
    rows, columns = warping_path(cost)
    assert float(cost[rows, columns].astype(np.float64).sum()) == pytest.approx(cheapest(cost), abs=1e-6)


@settings(deadline=None)
@given(costs)
def test_the_path_goes_from_corner_to_corner_by_single_steps(cost: np.ndarray) -> None:
    rows, columns = warping_path(cost)
    assert (rows[0], columns[0]) == (0, 0)
    assert (rows[-1] + 1, columns[-1] + 1) == cost.shape
    steps = np.stack([np.diff(rows), np.diff(columns)])
    assert ((steps >= 0) & (steps <= 1)).all() and (steps.sum(axis=0) >= 1).all()


def test_a_long_path_is_the_double_loops() -> None:
    cost = np.random.default_rng(0).normal(size=(60, 301)).astype(np.float32)
    rows, columns = warping_path(cost)
    assert float(cost[rows, columns].astype(np.float64).sum()) == pytest.approx(cheapest(cost), rel=1e-9)


def staircase(starts: list[int], frames: int, keys: int, heads: int = 3) -> np.ndarray:
    """Attention of tokens that each hear the frames from their own start to the next one's; silence after `frames`."""
    weights = np.random.default_rng(1).uniform(0, 1e-3, (heads, len(starts), keys)).astype(np.float32)
    for i, (start, end) in enumerate(zip(starts, [*starts[1:], frames], strict=True)):
        weights[:, i, start:end] += 1
    weights[:, :, frames:] += 2  # what is beyond the audio is loud, and must not be heard
    return weights


def test_tokens_begin_where_the_heads_begin_to_look() -> None:
    starts = [0, 20, 31, 60, 90]
    found = token_times(staircase(starts, 100, 160), 100)
    np.testing.assert_allclose(found, np.array(starts) * FRAME_SECONDS, atol=FRAME_SECONDS)


def test_one_heads_stray_frame_moves_nothing() -> None:
    weights = staircase([0, 40, 80], 120, 120)
    weights[0, 2, 10] = 50.0
    np.testing.assert_allclose(token_times(weights, 120), [0, 0.8, 1.6], atol=2 * FRAME_SECONDS)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("tokens", [1, 2, 12])
def test_every_token_has_a_time_however_few_the_frames(frames: int, tokens: int) -> None:
    weights = np.random.default_rng(2).uniform(size=(2, tokens, 30)).astype(np.float32)
    found = token_times(weights, frames)
    assert found.shape == (tokens,) and (np.diff(found) >= 0).all()
    assert found[0] == 0 and found[-1] <= (frames - 1) * FRAME_SECONDS + 1e-9


def test_attention_that_says_nothing_still_gives_times_in_order() -> None:
    for weights in (np.zeros((1, 5, 40), np.float32), np.full((1, 5, 40), 0.025, np.float32)):
        found = token_times(weights, 40)
        assert np.isfinite(found).all() and (np.diff(found) >= 0).all() and found.shape == (5,)
