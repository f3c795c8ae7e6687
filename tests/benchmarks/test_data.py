"""Picks from a manifest."""

import json
from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from data import Heard, Recordings, load  # noqa: E402  (needs the two libraries above)

CLIPS = [
    ("audio/jfk.wav", "ask not", "en", 11.0, "speech"),
    ("audio/not-jfk.wav", "read aloud", "en", 3.0, "read"),
    ("audio/three.wav", "three", "en", 1.0, "digits"),
    ("audio/book.wav", "a whole chapter", "en", 300.0, "long"),
    ("audio/de.wav", "guten Tag", "de", 4.0, "read"),
    ("audio/hum.wav", "", None, 5.0, "noise"),
]


@pytest.fixture
def recordings(tmp_path: Path) -> Recordings:
    (tmp_path / "audio").mkdir()
    lines = []
    for name, text, language, seconds, kind in CLIPS:
        soundfile.write(tmp_path / name, np.zeros(160, dtype=np.float32), 16_000)
        fields = {"file": name, "text": text, "language": language, "seconds": seconds, "kind": kind}
        lines.append(json.dumps(fields))
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(lines))
    return Recordings(manifest)


def names(clips: list[Heard]) -> list[str]:
    return [heard.clip.name for heard in clips]


def test_each_question_gets_its_clips(recordings: Recordings) -> None:
    assert names(recordings.read_english()) == ["audio/jfk.wav", "audio/not-jfk.wav"]
    assert names(recordings.other_languages()) == ["audio/de.wav"]
    assert names(recordings.non_speech()) == ["audio/hum.wav"]
    assert recordings.long().clip.name == "audio/book.wav"


def test_a_clip_is_found_by_its_file_name_and_not_by_its_ending(recordings: Recordings) -> None:
    assert recordings.named("jfk.wav").clip.name == "audio/jfk.wav"
    with pytest.raises(LookupError, match=r"nixon\.wav"):
        recordings.named("nixon.wav")


def test_a_batch_holds_english_clips_of_2_to_12_s(recordings: Recordings) -> None:
    assert {heard.clip.name for heard in recordings.batch(2)} == {"audio/jfk.wav", "audio/not-jfk.wav"}
    with pytest.raises(LookupError, match="has 2 English clips"):
        recordings.batch(3)


def test_stereo_at_another_rate_becomes_mono_at_16_khz(tmp_path: Path) -> None:
    left = np.full(44_100, 0.5, dtype=np.float32)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, -left], axis=1), 44_100, subtype="FLOAT")
    samples = load(tmp_path / "stereo.wav")
    assert samples.shape == (16_000,)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() < 1e-6
