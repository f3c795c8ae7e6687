import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.chunking import MAX_CHUNK, chunks
from sottovoce.vad import FRAME, SAMPLE_RATE, Span

SECOND = SAMPLE_RATE
NONE = np.ones(0, np.float32)


def test_spans_near_each_other_share_a_piece_and_keep_their_pause() -> None:
    found = chunks([Span(0, SECOND), Span(2 * SECOND, 3 * SECOND), Span(5 * SECOND, 6 * SECOND)], NONE, 15 * SECOND)
    assert found == [Span(0, 6 * SECOND)]


def test_a_pause_of_more_than_three_seconds_is_not_encoded() -> None:
    spans = [Span(0, SECOND), Span(4 * SECOND + 1, 6 * SECOND)]
    assert chunks(spans, NONE, 15 * SECOND) == spans


def test_a_piece_is_not_longer_than_wanted_where_it_can_be_cut_at_a_pause() -> None:
    spans = [Span(start * SECOND, (start + 6) * SECOND) for start in (0, 7, 14)]
    assert chunks(spans, NONE, 15 * SECOND) == [Span(0, 13 * SECOND), spans[2]]


def test_a_long_span_is_cut_where_speech_is_least_likely() -> None:
    probabilities = np.ones(40 * SECOND // FRAME + 1, np.float32)
    quiet = 12 * SECOND // FRAME
    probabilities[quiet] = 0.1
    first, *_ = chunks([Span(0, 40 * SECOND)], probabilities, 15 * SECOND)
    assert first.start == 0 and first.end // FRAME == quiet


def test_no_span_is_no_piece() -> None:
    assert chunks([], NONE, 15 * SECOND) == []


@pytest.mark.parametrize("extra", [1, 160, SECOND // 10])
def test_no_sliver_is_left_over_that_a_model_would_invent_words_for(extra: int) -> None:
    total = 30 * SECOND + extra
    for probabilities in (NONE, np.linspace(1, 0, total // FRAME + 1).astype(np.float32)):
        found = chunks([Span(0, total)], probabilities, 15 * SECOND)
        assert min(piece.end - piece.start for piece in found) >= SECOND


lengths = st.lists(st.tuples(st.integers(0, 8 * SECOND), st.integers(1, 50 * SECOND)), max_size=8)


@given(lengths, st.integers(2 * SECOND, 40 * SECOND), st.booleans(), st.integers(0, 99))
def test_pieces_are_bounded_in_order_and_cover_every_span(
    gaps: list[tuple[int, int]], wanted: int, heard: bool, seed: int
) -> None:
    spans, at = [], 0
    for gap, length in gaps:
        spans.append(Span(at + gap, at + gap + length))
        at += gap + length
    probabilities = np.random.default_rng(seed).uniform(size=-(-at // FRAME)).astype(np.float32) if heard else NONE
    found = chunks(spans, probabilities, wanted)
    assert all(0 < piece.end - piece.start <= min(wanted, MAX_CHUNK) for piece in found)
    edges = [edge for piece in found for edge in (piece.start, piece.end)]
    assert edges == sorted(edges)
    for span in spans:
        inside = [piece for piece in found if piece.start < span.end and piece.end > span.start]
        assert sum(min(p.end, span.end) - max(p.start, span.start) for p in inside) == span.end - span.start
