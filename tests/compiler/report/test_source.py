from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.errors import AudioError
from sottovoce_compiler.report import reference
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.reference import SourceModel
from sottovoce_compiler.report.source import evaluate_source, load_samples

from .source_case import checkpoint, noise


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "TEMPERATURES", (0.0,))
    soundfile.write(tmp_path / "a.wav", noise(1), 16_000)
    return Dataset("case", (Clip("a.wav", tmp_path / "a.wav", "some words", "de", 1.0),))


def test_the_same_source_and_data_are_measured_once(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate_source(checkpoint(), data)

    def never(self: SourceModel) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(SourceModel, "load", never)
    assert evaluate_source(checkpoint(), data) == first
    with pytest.raises(AssertionError):
        evaluate_source(checkpoint(sha="1"), data)


def test_a_damaged_cache_entry_is_measured_again(data: Dataset, tmp_path: Path) -> None:
    first = evaluate_source(checkpoint(), data)
    (entry,) = (tmp_path / "cache" / "reference").iterdir()
    whole = entry.read_text()
    entry.write_text(whole[: len(whole) // 2])
    assert evaluate_source(checkpoint(), data) == first
    assert entry.read_text() == whole


def test_other_words_or_audio_are_not_taken_from_the_cache(data: Dataset, tmp_path: Path) -> None:
    evaluate_source(checkpoint(), data)
    soundfile.write(tmp_path / "a.wav", noise(1, seed=5), 16_000)
    evaluate_source(checkpoint(), Dataset(data.name, data.clips))
    assert len(list((tmp_path / "cache" / "reference").iterdir())) == 2


def test_stereo_at_another_rate_becomes_mono_at_16_khz(tmp_path: Path) -> None:
    time = np.arange(24_000) / 48_000
    tone = np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, 0 * tone], axis=1), 48_000, subtype="FLOAT")
    samples = load_samples(tmp_path / "stereo.wav")
    assert samples.shape == (8000,) and samples.dtype == np.float32
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)
    assert np.abs(samples - expected)[200:-200].max() < 1e-3


def test_audio_that_cannot_be_read_is_an_audio_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"not audio")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    for name in ("a.wav", "missing.wav", "nan.wav"):
        with pytest.raises(AudioError, match=name):
            load_samples(tmp_path / name)
