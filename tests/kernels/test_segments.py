"""Where packed sequences begin and end."""

import pytest
import torch

from sottovoce_kernels.segments import Segments


def test_offsets_and_bounds_follow_the_lengths() -> None:
    segments = Segments.of([3, 1, 4])
    assert segments.offsets.tolist() == [0, 3, 4, 8]
    assert segments.offsets.dtype == torch.int32
    assert segments.bounds() == [(0, 3), (3, 4), (4, 8)]
    assert (segments.total, segments.longest) == (8, 4)


def test_no_segments_are_no_rows() -> None:
    empty = Segments.of([])
    assert (empty.total, empty.longest, empty.bounds(), empty.offsets.tolist()) == (0, 0, [], [0])


@pytest.mark.parametrize("length", [0, -2])
def test_a_segment_without_rows_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"a segment of {length} rows"):
        Segments.of([3, length])


def test_another_device_has_the_same_segments() -> None:
    moved = Segments.of([2, 5]).to("meta")
    assert moved.offsets.is_meta
    assert moved.lengths == (2, 5)
