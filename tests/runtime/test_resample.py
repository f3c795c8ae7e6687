"""The resampler against what theory says and against soxr."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sottovoce.resample import Resampler, resample

COMMON = (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000)
ODD = (1_000, 1_001, 15_999, 16_001, 22_255, 44_101, 176_400)
EDGE = 4_000  # output samples at each end, where a tone that starts at once is not a pure tone


def tone(rate: int, hertz: float, seconds: float = 2.0) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def decibels(ratio: float) -> float:
    return float(20 * np.log10(max(ratio, 1e-12)))


def peak(samples: NDArray[np.float32]) -> float:
    return float(np.abs(inner(samples)).max())


def inner(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return samples[EDGE:-EDGE]


@pytest.mark.parametrize("rate", [*COMMON, *ODD])
def test_a_tone_up_to_nine_tenths_of_nyquist_comes_out_in_place_and_at_its_level(rate: int) -> None:
    nyquist = min(rate, 16_000) / 2
    for fraction in (0.01, 0.33, 0.6, 0.9):
        hertz = fraction * nyquist
        made = resample(tone(rate, hertz), rate, 16_000)
        error = made - tone(16_000, hertz)[: len(made)]
        assert decibels(peak(error)) < -90


@pytest.mark.parametrize("rate", [rate for rate in (*COMMON, *ODD) if rate > 17_000])
def test_what_lies_above_the_new_nyquist_is_90_decibels_down(rate: int) -> None:
    for fraction in (1.0, 1.003, 1.05, 1.2, 1.9):
        hertz = fraction * 8_000
        if hertz < rate / 2:
            assert decibels(peak(resample(tone(rate, hertz), rate, 16_000))) < -90


@pytest.mark.parametrize("rate", [8_000, 11_025, 1_001])
def test_no_image_is_left_above_the_old_nyquist(rate: int) -> None:
    made = inner(resample(tone(rate, 0.45 * rate), rate, 16_000)).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(made * np.kaiser(len(made), 20)))
    hertz = np.fft.rfftfreq(len(made), 1 / 16_000)
    assert decibels(spectrum[hertz > rate / 2 * 1.01].max() / spectrum.max()) < -90


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 44_101])
def test_it_agrees_with_soxr(rate: int) -> None:
    soxr = pytest.importorskip("soxr")
    noise = np.random.default_rng(0).standard_normal(2 * rate).astype(np.float32)
    band_limited = resample(resample(noise, rate, 6_000), 6_000, rate)[: 2 * rate]
    ours, theirs = (
        resample(band_limited, rate, 16_000),
        soxr.resample(band_limited, rate, 16_000, quality="VHQ"),
    )
    shorter = min(len(ours), len(theirs))
    difference = inner(ours[:shorter] - theirs[:shorter])
    assert decibels(float(difference.std() / inner(ours).std())) < -85


@given(n=st.integers(0, 3_000), rate=st.integers(1_000, 60_000), out=st.sampled_from([16_000, 8_000]))
@settings(max_examples=60, deadline=None)
def test_the_length_is_that_of_the_input_rounded_up(n: int, rate: int, out: int) -> None:
    made = resample(np.zeros(n, np.float32), rate, out)
    assert len(made) == -(-n * out // rate) and made.dtype == np.float32


@pytest.mark.parametrize("rate", [1_000, 8_000, 22_255, 44_100, 48_000, 768_000])
def test_pieces_of_any_size_give_what_the_whole_gives(rate: int) -> None:
    rng = np.random.default_rng(1)
    whole = rng.standard_normal(rate // 2 + 11).astype(np.float32)
    resampler, made, place = Resampler(rate, 16_000), [], 0
    while place < len(whole):
        size = int(rng.choice([0, 1, 7, rate // 10, rate // 3]))
        made.append(resampler.push(whole[place : place + size]))
        place += size
    made.append(resampler.finish())
    # Another grouping of the same products: only float32 rounding may differ.
    np.testing.assert_allclose(np.concatenate(made), resample(whole, rate, 16_000), atol=5e-6)


def test_a_constant_stays_that_constant() -> None:
    for rate in (8_000, 44_100, 44_101):
        assert (
            np.abs(inner(resample(np.ones(rate * 2, np.float32), rate, 16_000)) - 1).max() < 4e-6
        )  # roundings of a sum in float32


def test_the_same_rate_changes_nothing() -> None:
    samples = tone(16_000, 100)
    np.testing.assert_array_equal(resample(samples, 16_000, 16_000), samples)


def test_a_minute_at_44100_hz_takes_well_under_half_a_second_of_processor_time() -> None:
    samples = np.zeros(60 * 44_100, np.float32)
    resample(samples[:44_100], 44_100, 16_000)
    started = time.thread_time()
    resample(samples, 44_100, 16_000)
    assert time.thread_time() - started < 0.5
