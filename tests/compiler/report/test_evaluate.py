import json
from pathlib import Path

import pytest

from sottovoce.errors import AudioError
from sottovoce_compiler.report.dataset import Clip
from sottovoce_compiler.report.evaluate import evaluate
from sottovoce_compiler.report.hypothesis import Hypothesis

from .report_case import dataset, says

CLIPS = (
    ("a", "one hello there", "en", 1.5),
    ("b", "and so my fellow citizens of the world", "en", 25.0),
    ("c", "客観的実在", "ja", 5.0),
    ("d", "", None, 30.0),
)


def test_words_and_characters_are_counted_apart_and_summed_over_clips(tmp_path: Path) -> None:
    measured = evaluate(says(a="one yellow there", c="客観的実体"), dataset(tmp_path, *CLIPS))
    assert measured.scores.wer == 1 / 11
    assert measured.scores.cer == 1 / 5


def test_strata_hold_the_clips_of_their_length_and_language(tmp_path: Path) -> None:
    strata = evaluate(says(a="two hello there"), dataset(tmp_path, *CLIPS)).strata
    assert list(strata) == ["short", "long", "non_speech", "language:en", "language:ja"]
    assert [strata[name].words.errors for name in ("short", "long", "language:en")] == [1, 0, 1]


def test_words_said_of_silence_are_invented_and_no_part_of_the_error_rate(tmp_path: Path) -> None:
    scores = evaluate(says(d="Thank you."), dataset(tmp_path, *CLIPS)).scores
    assert (scores.invented, scores.invented_per_minute, scores.wer) == (2, 4.0, 0.0)


def test_language_identification_counts_what_was_heard_against_what_is_known(tmp_path: Path) -> None:
    measured = evaluate(lambda clip: Hypothesis(clip.text, "en", 0.5), dataset(tmp_path, *CLIPS))
    assert measured.scores.language_id == (2, 3)
    silent_about_it = evaluate(lambda clip: Hypothesis(clip.text), dataset(tmp_path, *CLIPS))
    assert silent_about_it.scores.language_id == (0, 0)


def test_one_clip_that_fails_is_listed_and_the_others_are_measured(tmp_path: Path) -> None:
    def transcribe(clip: Clip) -> Hypothesis:
        if clip.name == "a":
            raise AudioError("a is truncated")
        return Hypothesis(clip.text)

    measured = evaluate(transcribe, dataset(tmp_path, *CLIPS))
    assert [(failure.clip.name, failure.error) for failure in measured.failures] == [("a", "a is truncated")]
    assert len(measured.results) == 3


def test_a_bug_is_not_taken_for_a_failing_clip(tmp_path: Path) -> None:
    def transcribe(clip: Clip) -> Hypothesis:
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        evaluate(transcribe, dataset(tmp_path, *CLIPS))


def test_the_json_has_the_keys_that_scripts_rely_on_and_rounded_rates(tmp_path: Path) -> None:
    measured = evaluate(says(a="one yellow there"), dataset(tmp_path, *CLIPS)).to_json()
    assert (measured["wer"], measured["cer"], measured["words"]) == (0.0909, 0.0, 11)
    assert measured["strata"]["short"]["substitutions"] == 1
    assert measured["strata"]["non_speech"]["wer"] is None
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured


def test_the_json_names_no_path(tmp_path: Path) -> None:
    assert str(tmp_path) not in json.dumps(evaluate(says(), dataset(tmp_path, *CLIPS)).to_json())


def test_progress_is_told_of_every_clip(tmp_path: Path) -> None:
    told: list[int] = []
    evaluate(says(), dataset(tmp_path, *CLIPS), told.append)
    assert told == [1, 2, 3, 4]
