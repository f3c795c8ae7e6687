"""What is hidden of a recording is hidden wholly, is the same each time, and changes nothing else."""

from dataclasses import dataclass

import numpy as np
import pytest

from sottovoce.audio import SAMPLE_RATE
from sottovoce.errors import InputError
from sottovoce_compiler.finetune.data.augment import (
    MASKED_SHARE,
    MASKS,
    Masked,
    Samples,
    Spoken,
    Utterance,
    more_of,
    ways_of,
)


@dataclass(frozen=True, slots=True)
class Noise:
    """All frequencies at all times."""

    seconds: float

    def load(self) -> Samples:
        draw = np.random.default_rng(round(self.seconds * SAMPLE_RATE))
        return draw.standard_normal(round(self.seconds * SAMPLE_RATE)).astype(np.float32)


def utterance(seconds: float, text: str = "ab") -> Utterance:
    return Utterance(Noise(seconds), seconds, text.encode(), (Spoken(text, 0.0, seconds),), "en", "transcribe", 1)


def test_stretches_are_silent_and_bands_are_empty() -> None:
    sound = Masked(Noise(1.0), ((100, 900), (8000, 8400)), ((1000.0, 2000.0), (0.0, 50.0)))
    heard = sound.load()
    assert heard.size == SAMPLE_RATE and heard.dtype == np.float32
    assert not heard[100:900].any() and not heard[8000:8400].any()
    # Between the stretches, where nothing was cut: there the bands have no energy, and the rest has its own.
    whole = Masked(Noise(1.0), (), sound.bands)
    power, before = (np.abs(np.fft.rfft(one)) ** 2 for one in (whole.load(), Noise(1.0).load()))
    hertz = np.fft.rfftfreq(SAMPLE_RATE, 1 / SAMPLE_RATE)
    inside = ((hertz >= 1000) & (hertz < 2000)) | (hertz < 50)
    assert power[inside].sum() < 1e-9 * before[inside].sum()
    np.testing.assert_allclose(power[~inside], before[~inside], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seconds", [0.1, 1.7, 28.0])
def test_no_more_than_a_part_is_hidden(seconds: float) -> None:
    (made,) = more_of([utterance(seconds)], ("mask",), 3, lambda one: True)
    assert isinstance(made.sound, Masked)
    samples = round(seconds * SAMPLE_RATE)
    assert len(made.sound.stretches) == len(made.sound.bands) == MASKS
    for first, last in made.sound.stretches:
        assert 0 <= first <= last <= samples and last - first <= min(SAMPLE_RATE, MASKED_SHARE * samples) + 1
    for low, high in made.sound.bands:
        assert 0 <= low <= high <= SAMPLE_RATE / 2 * 1.001
    assert (made.seconds, made.spoken) == (seconds, utterance(seconds).spoken)


def test_a_seed_hides_the_same_and_another_seed_another_part() -> None:
    both = [utterance(2.0), utterance(3.0, "cd")]
    first, again, other = (more_of(both, ("mask",), seed, lambda one: True) for seed in (1, 1, 2))
    assert first == again
    assert len({one.digest for one in [*both, *first, *other]}) == 6


def test_names_are_known_and_come_in_one_order() -> None:
    assert ways_of("mask, speed") == ("speed", "mask")
    assert ways_of("none") == ()
    with pytest.raises(InputError, match="'echo' is none of speed, join, mask"):
        ways_of("echo")
