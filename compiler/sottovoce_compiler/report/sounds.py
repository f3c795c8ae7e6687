"""Sounds in which nothing is said, made from a seed: what a model must not put words to.

Knows NumPy only. Every function returns float64 samples, shape (count,), with the loudest one at 1 (or all
zero).
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz
MAINS_HZ = 50
MAINS_HARMONICS = 5
CLICKS_PER_SECOND = 2
CLICK_DECAY = 0.002  # seconds until a click has fallen to 1/e

Samples = NDArray[np.float64]


def make_sound(name: str, seconds: float, level: float, seed: int = 0) -> NDArray[np.int16]:
    """16-bit samples at 16 kHz, shape (round(seconds * 16000),), the loudest at `level` of full scale."""
    # The legacy generator's stream is frozen by numpy: these are the same samples with every version.
    samples = SOUNDS[name](round(seconds * SAMPLE_RATE), np.random.RandomState(seed))
    peak = float(np.abs(samples).max())
    scaled = samples * (level / peak) if peak else samples
    return np.round(scaled * np.iinfo(np.int16).max).astype(np.int16)


def _silence(count: int, draw: np.random.RandomState) -> Samples:
    return np.zeros(count)


def _white_noise(count: int, draw: np.random.RandomState) -> Samples:
    return draw.uniform(-1, 1, count)


def _pink_noise(count: int, draw: np.random.RandomState) -> Samples:
    """Power falls as 1/f, as in wind, traffic and rooms: amplitudes of white noise over the root of
    frequency.
    """
    spectrum = np.fft.rfft(draw.standard_normal(count))
    spectrum[0] = 0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return np.fft.irfft(spectrum, count)


def _mains_hum(count: int, draw: np.random.RandomState) -> Samples:
    time = np.arange(count) / SAMPLE_RATE
    harmonics = range(1, MAINS_HARMONICS + 1)
    samples: Samples = np.sum([np.sin(2 * np.pi * MAINS_HZ * n * time) / n for n in harmonics], axis=0)
    return samples


def _clicks(count: int, draw: np.random.RandomState) -> Samples:
    """Short decaying bursts at random times, like keys or a bad contact."""
    samples = np.zeros(count)
    burst_length = round(5 * CLICK_DECAY * SAMPLE_RATE)
    envelope = np.exp(-np.arange(burst_length) / (CLICK_DECAY * SAMPLE_RATE))
    for start in draw.randint(0, count - burst_length, round(CLICKS_PER_SECOND * count / SAMPLE_RATE)):
        samples[start : start + burst_length] += draw.uniform(-1, 1, burst_length) * envelope
    return samples


SOUNDS: Mapping[str, Callable[[int, np.random.RandomState], Samples]] = {
    "silence": _silence,
    "white-noise": _white_noise,
    "pink-noise": _pink_noise,
    "mains-hum": _mains_hum,
    "clicks": _clicks,
}
