from pathlib import Path

import pytest

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.report import drift
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.drift import timestamp_drift
from sottovoce_compiler.sources import resolve

pytestmark = pytest.mark.weights


def test_a_good_artifact_times_words_as_its_source_does(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "cache_root", lambda: tmp_path)
    checkpoint = resolve("whisper-tiny.en")
    heads = whisper_spec(checkpoint).alignment_heads
    measured = timestamp_drift(checkpoint, heads, tiny_bundle, builtin_set())
    assert measured["clips"] == 4 and measured["tokens"] > 80
    assert measured["mean_ms"] < 60

    def no_model(checkpoint: object) -> None:
        raise AssertionError("the source was measured twice")

    monkeypatch.setattr(drift, "SourceModel", no_model)
    assert timestamp_drift(checkpoint, heads, tiny_bundle, builtin_set()) == measured


def test_heads_that_do_not_follow_the_audio_show_as_drift(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "cache_root", lambda: tmp_path)
    checkpoint = resolve("whisper-tiny.en")
    first_layer = tuple((0, head) for head in range(6))
    assert timestamp_drift(checkpoint, first_layer, tiny_bundle, builtin_set())["mean_ms"] > 150


def test_data_without_english_speech_gives_no_figure(tiny_bundle: Path) -> None:
    silent = builtin_set()
    silent = type(silent)("silent", tuple(clip for clip in silent.clips if not clip.is_speech))
    checkpoint = resolve("whisper-tiny.en")
    assert timestamp_drift(checkpoint, whisper_spec(checkpoint).alignment_heads, tiny_bundle, silent) == {}
