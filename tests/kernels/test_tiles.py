"""How rows and values are cut for kernels."""

import pytest
import torch

from sottovoce_kernels.backend import BackendError
from sottovoce_kernels.elementwise import BLOCK, blocks
from sottovoce_kernels.tiles import TILES, programs, tile_for, unit_stride


@pytest.mark.parametrize("width", [1, 2, 3, 64, 65, 576, 8191, 8192])
@pytest.mark.parametrize("backward", [False, True])
def test_a_tile_is_a_power_of_two_that_holds_a_row_and_gives_every_thread_some_values(
    width: int, backward: bool
) -> None:
    tile = tile_for(width, backward=backward)
    assert width <= tile.width < 2 * width or tile.width == width == 1
    assert tile.width.bit_count() == tile.rows.bit_count() == 1
    assert tile.rows * tile.width <= tile.warps * 32 * (8 if backward else 16)
    assert tile.count(3 * tile.rows + 1) == 4


def test_a_row_wider_than_any_tile_is_refused() -> None:
    with pytest.raises(BackendError, match=f"take up to {TILES[-1][0]}"):
        tile_for(TILES[-1][0] + 1)


def test_no_more_programs_than_tiles() -> None:
    assert programs(torch.device("cpu"), 3) == 3
    assert 0 < programs(torch.device("cpu"), 1000) < 1000


def test_values_of_a_row_lie_one_behind_the_other() -> None:
    x = torch.zeros(4, 6)
    assert unit_stride(x[:, 1:3]).data_ptr() == x[:, 1:].data_ptr()
    assert unit_stride(x.t()).stride(1) == 1


def test_tensors_end_to_end_are_cut_as_one_row() -> None:
    x, apart = torch.zeros(3, 1100), torch.zeros(3, 2200)[:, :1100]
    one = blocks((x, x))
    assert (one.rows, one.width, one.grid, one.strides) == (1, 3300, (-(-3300 // BLOCK),), (0, 0))
    several = blocks((x, apart))
    assert (several.rows, several.width, several.grid, several.strides) == (3, 1100, (6,), (1100, 2200))
    assert blocks((torch.zeros(0, 5),)).rows == 0
