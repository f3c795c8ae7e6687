"""Chunks of every kind into mono float32 at 16 kHz, and what is said of those that are none."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sottovoce.errors import AudioError
from sottovoce.streaming.chunks import AudioChunk
from sottovoce.streaming.intake import Float, Intake

RATE = 16_000


def tone(frequency: float, seconds: float, rate: int, start: float = 0.0) -> Float:
    """A sine at half of full scale; `start` in seconds, so that parts follow one another."""
    t = start + np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def taken(intake: Intake, chunks: Iterable[NDArray[Any] | AudioChunk]) -> Float:
    """All that comes out of a stream of chunks."""
    blocks = [block for chunk in chunks for block in intake.blocks(chunk)]
    out = np.concatenate([*blocks, intake.finish()])
    assert out.dtype == np.float32 and out.ndim == 1
    return out


def test_floats_at_16_khz_come_out_as_they_went_in() -> None:
    audio = tone(440, 5.0, RATE)
    np.testing.assert_array_equal(taken(Intake(), [audio]), audio)


@pytest.mark.parametrize(
    ("dtype", "zero", "scale"), [("int16", 0, 2**15), ("int32", 0, 2**31), ("uint8", 128, 2**7), ("float64", 0, 1)]
)
def test_every_type_is_brought_to_the_same_scale(dtype: str, zero: int, scale: int) -> None:
    audio = tone(440, 0.5, RATE)
    raw = (audio.astype(np.float64) * scale + zero).astype(dtype)
    np.testing.assert_allclose(taken(Intake(), [raw]), audio, atol=1.5 / scale if dtype != "float64" else 1e-7)


def test_channels_are_averaged() -> None:
    left, right = tone(440, 0.5, RATE), tone(1000, 0.5, RATE)
    out = taken(Intake(), [np.stack([left, right], axis=1)])
    np.testing.assert_allclose(out, (left + right) / 2, atol=1e-6)


def test_channels_may_come_and_go() -> None:
    audio = tone(440, 0.3, RATE)
    out = taken(Intake(), [audio, np.stack([audio, audio, audio], axis=1), audio[:, None]])
    np.testing.assert_allclose(out, np.tile(audio, 3), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_another_rate_gives_a_tone_of_the_same_height(rate: int) -> None:
    out = taken(Intake(rate), [tone(1000, 1.0, rate)])
    assert out.size == RATE
    inside = slice(1000, -1000)
    np.testing.assert_allclose(out[inside], tone(1000, 1.0, RATE)[inside], atol=1e-3)


def test_a_rate_that_changes_in_mid_stream_loses_nothing_and_a_tone_stays_a_tone() -> None:
    rates = [16_000, 48_000, 8000, 44_100, 16_000, 16_000]
    parts = [AudioChunk(tone(500, 0.5, rate, start=0.5 * i), rate) for i, rate in enumerate(rates)]
    out = taken(Intake(), parts)
    assert out.size == 0.5 * RATE * len(parts)
    expected = tone(500, 0.5 * len(parts), RATE)
    seams = np.arange(1, len(parts)) * RATE // 2
    clear = np.abs(np.arange(out.size)[:, None] - seams).min(axis=1) > 500  # resamplers ring at the ends
    np.testing.assert_allclose(out[clear][500:-500], expected[clear][500:-500], atol=1e-3)


def test_plain_arrays_keep_the_rate_that_was_given_whatever_came_between() -> None:
    low = tone(500, 0.5, 8000)
    out = taken(Intake(8000), [low, AudioChunk(tone(500, 0.5, RATE), RATE), low])
    assert out.size == 1.5 * RATE


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([8000, 16_000, 44_100]),
    st.lists(st.integers(0, 3000), max_size=12),
    st.sampled_from(["float32", "int16"]),
)
def test_the_same_samples_in_any_chunks_give_the_same_audio(rate: int, sizes: list[int], dtype: str) -> None:
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 12_000).astype(np.float32)
    raw = audio if dtype == "float32" else (audio * 32768).astype(np.int16)
    edges = np.minimum(np.cumsum([0, *sizes]), raw.size)
    parts = [*(raw[a:b] for a, b in pairwise(edges)), raw[edges[-1] :]]
    whole, pieces = taken(Intake(rate), [raw]), taken(Intake(rate), parts)
    assert pieces.size == whole.size == -(-raw.size * RATE // rate)
    # A matrix product of another height may round its last bit differently.
    np.testing.assert_allclose(pieces, whole, atol=0 if rate == RATE else 1e-6)


def test_a_chunk_of_any_length_is_handed_on_in_bounded_pieces() -> None:
    sizes = [block.size for block in Intake().blocks(np.zeros(20 * 65_536 + 5, np.float32))]
    assert max(sizes) <= 65_536 and sum(sizes) == 20 * 65_536 + 5


def test_an_empty_chunk_is_no_audio_and_no_error() -> None:
    intake = Intake(44_100)
    for empty in (np.zeros(0, np.float32), np.zeros((0, 2), np.int16), AudioChunk(np.zeros(0, np.uint8), 8000)):
        assert sum(block.size for block in intake.blocks(empty)) == 0
    assert intake.finish().size == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 8000])
def test_a_sample_that_is_no_number_is_named_with_its_place_in_the_stream(value: float, rate: int) -> None:
    broken = np.zeros(rate, np.float32)
    broken[rate // 4 :] = value
    intake = Intake(rate)
    list(intake.blocks(np.zeros(6 * rate, np.float32)))
    with pytest.raises(AudioError, match=rf"{value}.* at 6\.250 s"):
        list(intake.blocks(broken))


def test_the_place_counts_seconds_of_every_rate_before_it() -> None:
    intake = Intake()
    for rate in (8000, 48_000):
        list(intake.blocks(AudioChunk(np.zeros(rate, np.float32), rate)))
    with pytest.raises(AudioError, match=r" at 2\.000 s"):
        list(intake.blocks(np.array([np.nan], np.float32)))


@pytest.mark.parametrize("at", [0, 1, 70_000, 65_536])
def test_what_came_before_a_fault_is_handed_over_to_the_last_sample(at: int) -> None:
    audio = np.linspace(-0.5, 0.5, 140_000, dtype=np.float32)
    broken = audio.copy()
    broken[at:] = np.nan
    out = [np.zeros(0, np.float32)]
    with pytest.raises(AudioError):
        for block in Intake().blocks(broken):
            out.append(block)
    np.testing.assert_array_equal(np.concatenate(out), audio[:at])


def test_after_a_fault_the_stream_goes_on() -> None:
    audio = tone(440, 0.5, RATE)
    intake = Intake()
    with pytest.raises(AudioError):
        list(intake.blocks(np.full(100, np.nan, np.float32)))
    np.testing.assert_array_equal(taken(intake, [audio]), audio)


def test_floats_that_were_never_scaled_are_told_from_loud_ones() -> None:
    loud = np.full(100, 3.0, np.float32)
    np.testing.assert_array_equal(taken(Intake(), [loud]), loud)
    with pytest.raises(AudioError, match=r"1\.2e\+04.*32768"):
        list(Intake().blocks(np.full(100, -12_000.0, np.float32)))


@pytest.mark.parametrize("dtype", ["int64", "uint16", "bool", "complex64", "U1"])
def test_a_type_that_has_no_scale_is_refused_by_name(dtype: str) -> None:
    with pytest.raises(AudioError, match="dtype"):
        list(Intake().blocks(np.zeros(10, dtype)))


@pytest.mark.parametrize("shape", [(), (10, 2, 2), (10, 0), (2, 1600)])
def test_a_shape_that_is_no_audio_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="shape"):
        list(Intake().blocks(np.zeros(shape, np.float32)))


@pytest.mark.parametrize("chunk", [[0.0, 0.1], b"\0\0", None, AudioChunk([0.0], RATE)])  # type: ignore[list-item]
def test_what_is_no_array_is_refused_by_its_type(chunk: Any) -> None:
    with pytest.raises(AudioError, match="NumPy array"):
        list(Intake().blocks(chunk))


@pytest.mark.parametrize("rate", [0, -16_000, 999, 1_000_000, 44_100.5, "16000", True, None])
def test_a_rate_that_cannot_be_used_is_refused(rate: Any) -> None:
    with pytest.raises(AudioError, match="sample rate"):
        Intake(rate)
    with pytest.raises(AudioError, match="sample rate"):
        list(Intake().blocks(AudioChunk(np.zeros(10, np.float32), rate)))


def test_numpys_integers_are_rates_too() -> None:
    assert taken(Intake(np.int64(8000)), [np.zeros(80, np.float32)]).size == 160  # type: ignore[arg-type]
