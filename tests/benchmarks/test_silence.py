"""Sounds in which nobody speaks."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from data import Heard
from silence import SECONDS, digital, noise

from sottovoce_compiler.report.dataset import Clip


def clip(name: str, level: float, kind: str = "noise") -> Heard:
    samples = (level * np.random.default_rng(0).normal(size=16_000)).astype(np.float32)
    return Heard(Clip(name, Path(name), "", None, 1.0, kind), samples)


def test_noise_is_repeated_at_one_level_and_what_holds_speech_or_music_or_nothing_is_left_out() -> None:
    clips = [clip("hum", 0.2), clip("talk", 0.1), clip("hiss", 0.001), clip("song", 0.1, "music"), clip("none", 0.0)]
    found = noise(clips, lambda samples: np.array_equal(samples, clips[1].samples))
    assert found is not None
    assert (found.clips, found.left_out) == (("hum", "hiss"), ("talk",))
    assert found.samples.size == SECONDS * 16_000
    seconds = found.samples.reshape(-1, 16_000)
    np.testing.assert_allclose(20 * np.log10(np.sqrt((seconds**2).mean(axis=1))), -50, atol=0.01)


def test_there_is_no_noise_where_every_clip_holds_speech() -> None:
    assert noise([clip("talk", 0.1)], lambda samples: True) is None


def test_digital_silence_is_zeros() -> None:
    assert digital().samples.size == SECONDS * 16_000
    assert not digital().samples.any()
