import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.audio import load_audio
from sottovoce.errors import SottovoceError
from sottovoce.golden import Case, check_case
from sottovoce.loading import Loaded
from sottovoce_compiler.report import golden
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.golden import golden_files


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    clips = []
    for name, text, seconds, kind in (
        ("long.wav", "a b", 9.0, "speech"),
        ("near.wav", "a b", 1.0, "speech"),
        ("silence.wav", "", 0.1, "silence"),
        ("hum.wav", "", 0.3, "noise"),
        ("hiss.wav", "", 0.5, "noise"),
    ):
        samples = np.random.default_rng(len(name)).normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)
        soundfile.write(tmp_path / name, samples, 16_000)
        clips.append(Clip(name, tmp_path / name, text, "en" if text else None, seconds, kind))
    return Dataset("case", tuple(clips))


def test_a_bundle_that_says_nothing_gets_no_case_that_would_pass_for_silence(
    random_bundle: Path, data: Dataset
) -> None:
    with pytest.raises(SottovoceError, match="random says nothing of case that a device could check"):
        golden_files(random_bundle, data, threads=1)


def test_the_sound_without_speech_is_the_shortest_that_is_not_silence(data: Dataset) -> None:
    clip, case = golden._silence(data)
    assert clip.name == "hum.wav"
    assert (case.tokens, case.logprobs, case.text) == ((), (), "")


@pytest.mark.weights
def test_the_cases_are_what_the_bundle_says_and_the_same_again(tiny_bundle: Path) -> None:
    data = builtin_set()
    files = golden_files(tiny_bundle, data, threads=1)
    assert sorted(files) == [f"golden/case-{i}.{ending}" for i in (0, 1) for ending in ("json", "wav")]
    assert golden_files(tiny_bundle, data, threads=1) == files
    speech, quiet = (Case.of(json.loads(files[f"golden/case-{i}.json"]), "x") for i in (0, 1))
    spoken = min((clip for clip in data.clips if clip.is_speech), key=lambda clip: abs(clip.seconds - 5))
    assert speech.audio == "golden/case-0.wav"
    np.testing.assert_allclose(load_audio(files[speech.audio]), load_audio(spoken.file), atol=1e-4)
    assert "all going direct" in speech.text and "all going direct" in spoken.text
    assert len(speech.logprobs) == len(speech.tokens) + 1
    assert all(round(value, 3) == value for value in speech.logprobs)
    assert not quiet.tokens and quiet.audio == "golden/case-1.wav"
    loaded = Loaded.open(tiny_bundle, 1)
    samples = load_audio(spoken.file)
    assert check_case(loaded, speech, samples) == []
    wrong = replace(speech, logprobs=tuple(value - 1 for value in speech.logprobs))
    assert "log probabilities differ" in check_case(loaded, wrong, samples)[0]
    loaded.engine.close()
