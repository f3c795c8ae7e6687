"""How matrices are rounded: what is lost, and what importance does."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sottovoce.errors import InputError
from sottovoce_compiler.lowerings.litert.graph import Packed
from sottovoce_compiler.lowerings.litert.precision import LITERT_PRECISIONS
from sottovoce_compiler.lowerings.litert.recipe import recipe
from sottovoce_compiler.lowerings.litert.stores import Int4Blocks, Int8Rows, KeepFloat

WEIGHT = np.random.default_rng(0).normal(size=(40, 128)).astype(np.float32)


def restored(packed: Packed) -> NDArray[np.float32]:
    """What a product sees."""
    if packed.bits == 8:
        return packed.codes * packed.scales[:, None]
    low, high = packed.codes & 15, packed.codes >> 4
    codes = np.stack([low, high], axis=-1).reshape(len(low), -1).astype(np.int8)
    codes = np.where(codes > 7, codes - 16, codes)
    assert packed.block is not None
    return codes * np.repeat(packed.scales.astype(np.float32), packed.block, axis=1)


def lost(packed: Packed, weight: NDArray[np.float32], by: NDArray[np.float32] | None = None) -> float:
    return float((((restored(packed) - weight) ** 2) * (1 if by is None else by)).mean())


def stored(store: Int4Blocks | Int8Rows, weight: NDArray[np.float32]) -> Packed:
    packed = store(weight)
    assert isinstance(packed, Packed)
    return packed


def test_eight_bits_lose_at_most_half_a_step_of_their_row() -> None:
    packed = stored(Int8Rows(), WEIGHT)
    assert packed.codes.dtype == np.int8 and packed.scales.dtype == np.float32
    assert (np.abs(restored(packed) - WEIGHT) <= packed.scales[:, None] * 0.5001).all()
    assert np.abs(packed.codes).max(axis=1).tolist() == [127] * 40


def test_four_bits_with_searched_scales_lose_less_than_with_the_largest_value_at_the_end() -> None:
    packed = stored(Int4Blocks(32), WEIGHT)
    assert packed.codes.shape == (40, 64) and packed.scales.shape == (40, 4) and packed.scales.dtype == np.float16
    blocks = WEIGHT.reshape(40, 4, 32)
    scales = np.abs(blocks).max(axis=-1, keepdims=True) / 7
    plain = (np.rint(blocks / scales) * scales).reshape(WEIGHT.shape)
    assert lost(packed, WEIGHT) < 0.85 * float(((plain - WEIGHT) ** 2).mean())


def test_importance_moves_the_loss_to_columns_that_matter_less() -> None:
    importance = np.where(np.arange(128) % 4 == 0, 50.0, 1.0).astype(np.float32)
    weighed, plain = (stored(Int4Blocks(32, by), WEIGHT) for by in (importance, None))
    assert lost(weighed, WEIGHT, importance) < 0.97 * lost(plain, WEIGHT, importance)
    assert lost(weighed, WEIGHT) > lost(plain, WEIGHT)


@pytest.mark.parametrize("weight", [np.zeros((2, 32)), np.full((2, 32), 1e-30), np.full((2, 32), 1e-9)])
def test_nothing_at_all_stays_nothing(weight: NDArray[np.float64]) -> None:
    for store in (Int8Rows(), Int4Blocks(32)):
        packed = stored(store, weight.astype(np.float32))
        assert (packed.scales > 0).all(), "the kernels refuse a scale of 0"
        np.testing.assert_allclose(restored(packed), weight, atol=1e-8)


def test_rows_that_no_block_divides_are_refused() -> None:
    with pytest.raises(ValueError, match="48 values do not divide into blocks of 32"):
        Int4Blocks(32)(WEIGHT[:, :48])
    with pytest.raises(ValueError, match="importance of shape"):
        Int4Blocks(32, np.ones(5, np.float32))(WEIGHT)
    with pytest.raises(InputError, match=r"rows of 48 values .* --precision int8"):
        recipe("int4", 48)


@pytest.mark.parametrize("precision", LITERT_PRECISIONS)
def test_every_precision_has_a_recipe_that_says_what_it_is(precision: str) -> None:
    chosen = recipe(precision, 64)
    assert chosen.decoder.describe() and chosen.half_tables == (precision != "fp32")


def test_parts_may_differ_and_an_unknown_precision_is_refused() -> None:
    mixed = recipe("encoder=fp32,decoder=int4,head=int8", 64)
    assert mixed.encoder == KeepFloat() and isinstance(mixed.decoder, Int4Blocks) and mixed.head == Int8Rows()
    with pytest.raises(ValueError, match="'int3' is not one of"):
        recipe("int3", 64)
