"""Rows in chunks."""

from unittest.mock import patch

import pytest
import torch

from sottovoce_kernels import rows


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25])
def test_chunks_are_all_rows_once_and_a_buffer_holds_the_largest(count: int) -> None:
    x = torch.zeros(count, 2, 5)
    with patch.object(rows, "CHUNK", 100):
        slices = list(rows.chunks(x))
        work = rows.buffers(x, 2)
    assert [row for one in slices for row in range(count)[one]] == list(range(count))
    assert all(one.stop - one.start <= 10 for one in slices)
    assert work.shape == (2, min(10, count), 2, 5)


def test_a_row_larger_than_a_chunk_is_a_chunk() -> None:
    with patch.object(rows, "CHUNK", 4):
        assert [one.stop - one.start for one in rows.chunks(torch.zeros(3, 5))] == [1, 1, 1]


def test_elsewhere_than_on_a_cpu_all_rows_are_one_chunk() -> None:
    assert list(rows.chunks(torch.empty(1000, 5000, device="meta"))) == [slice(0, 1000)]


def test_half_precision_is_computed_in_float32() -> None:
    computed = [rows.wide(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64)]
    assert computed == [torch.float32, torch.float32, torch.float32, torch.float64]
