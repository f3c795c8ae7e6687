"""What the searches promise, beyond being ggml's: codes in range, and no worse than the plain choice."""

from collections.abc import Iterator

import numpy as np
import pytest

from sottovoce_compiler.lowerings.gguf.quants.search import AffineSteps, affine, positive, symmetric

STEPS = AffineSteps(first=-0.9, step=0.05, count=37)


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """As `quantize` does: what constant blocks divide by zero is not used."""
    with np.errstate(all="ignore"):
        yield


def blocks(n: int, count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(n)
    values = random.standard_t(3, (n, count)).astype(np.float32)
    return values, random.chisquare(1, (n, count)).astype(np.float32)


def weighted(values: np.ndarray, weights: np.ndarray, found: np.ndarray) -> np.ndarray:
    return (weights * (values - found) ** 2).sum(axis=0, dtype=np.float64)


@pytest.mark.parametrize("levels", [8, 16, 32])
def test_a_symmetric_fit_is_no_worse_than_scaling_by_the_peak(levels: int) -> None:
    values, weights = blocks(32)
    fit = symmetric(values, weights, levels)
    codes = fit.codes(values, levels)
    assert codes.max() < 2 * levels
    top = values[np.abs(values).argmax(axis=0), np.arange(values.shape[1])]
    plain = top / -levels
    naive = np.clip(np.rint(values / plain), -levels, levels - 1) * plain
    ours = weighted(values, weights, fit.scale * (codes.astype(int) - levels))
    wanted = weighted(values, weights, naive)
    assert (ours <= wanted * 1.0001).all() and ours.sum() < 0.95 * wanted.sum()


@pytest.mark.parametrize("levels", [15, 31])
def test_an_affine_fit_is_no_worse_than_spanning_the_range(levels: int) -> None:
    values, weights = blocks(32)
    fit = affine(values, weights, levels, STEPS)
    codes = fit.codes(values, levels)
    assert codes.max() <= levels and (fit.low <= 0).all()
    low = np.minimum(values.min(axis=0), 0)
    plain = (values.max(axis=0) - low) / levels
    naive = np.clip(np.rint((values - low) / plain), 0, levels) * plain + low
    ours = weighted(values, weights, fit.scale * codes + fit.low)
    wanted = weighted(values, weights, naive)
    assert (ours <= wanted * 1.0001).all() and ours.sum() < 0.95 * wanted.sum()


def test_a_constant_block_has_scale_zero_and_codes_zero() -> None:
    values = np.full((32, 2), -3, np.float32)
    fit = affine(values, np.ones_like(values), 15, STEPS)
    assert fit.scale.tolist() == [0, 0] and fit.low.tolist() == [-3, -3]
    assert not fit.codes(values, 15).any()


def test_an_empty_block_has_scale_zero_and_codes_zero() -> None:
    values = np.full((16, 2), 1e-16, np.float32)
    fit = symmetric(values, np.ones_like(values), 32)
    assert fit.scale.tolist() == [0, 0] and not fit.codes(values, 32).any()


def test_a_positive_fit_recovers_multiples_exactly() -> None:
    whole = np.random.default_rng(0).integers(0, 64, (8, 20))
    whole[0] = 63
    scale, codes = positive((whole * 0.25).astype(np.float32), np.ones(whole.shape, np.float32), 63)
    assert np.array_equal(codes, whole) and scale == pytest.approx(0.25)
