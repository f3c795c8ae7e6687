"""Tables of values: never worse than equal steps, exact where there are few values, weighed where asked."""

import numpy as np

from sottovoce_compiler.lowerings.coreml.palette import nearest, palette


def loss(values: np.ndarray, table: np.ndarray, weights: np.ndarray | None = None) -> float:
    error = (table[nearest(values, table)] - values) ** 2
    return float(np.average(error, weights=weights))


def test_a_table_of_bell_shaped_values_loses_what_the_best_known_one_loses() -> None:
    """Max (1960), "Quantizing for minimum distortion": 16 levels for a standard normal lose 0.009497."""
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    assert loss(values, palette(values, 16)) < 0.0100


def test_as_many_different_values_as_the_table_holds_are_kept_exactly() -> None:
    values = np.repeat(np.linspace(-2, 2, 16, dtype=np.float32).astype(np.float16), 50).astype(np.float32)
    assert loss(values, palette(values, 16)) == 0


def test_what_counts_more_is_kept_better() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(64, 32)).astype(np.float32)
    weights = np.ones_like(values)
    weights[:, :8] = 100
    weighed, plain = palette(values, 8, weights), palette(values, 8)
    assert loss(values, weighed, weights) < loss(values, plain, weights)
    assert loss(values[:, :8], weighed) < loss(values[:, :8], plain)


def test_equal_values_have_a_table_too() -> None:
    values = np.full((4, 4), 0.5, np.float32)
    assert loss(values, palette(values, 16)) == 0
