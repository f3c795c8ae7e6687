import dataclasses
import json
import math
from pathlib import Path

import pytest

import sottovoce_targets
from sottovoce.errors import AudioError, InputError
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.evaluate import Evaluation, Failure, evaluate
from sottovoce_compiler.report.gate import Check, Gate, GateError, gate_from
from sottovoce_compiler.report.hypothesis import Hypothesis

from .report_case import dataset, says

TEXT = " ".join(f"word{n}" for n in range(50))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return dataset(
        tmp_path,
        ("a", TEXT, "de", 10.0),
        ("b", TEXT, "de", 10.0),
        ("c", "客観的実在", "ja", 5.0),
        ("silence", "", None, 60.0),
    )


@pytest.fixture
def source(data: Dataset) -> Evaluation:
    return evaluate(says(), data)


def test_an_artifact_equal_to_its_source_passes(data: Dataset, source: Evaluation) -> None:
    result = Gate().check(source, evaluate(says(), data))
    assert result.passed and not result.reasons
    result.require()


def test_an_increase_of_exactly_the_limit_passes_and_one_more_word_does_not(data: Dataset, source: Evaluation) -> None:
    one, two = TEXT.replace("word7 ", ""), TEXT.replace("word7 word8 ", "")
    assert Gate(max_wer_increase=0.01).check(source, evaluate(says(a=one), data)).passed
    result = Gate(max_wer_increase=0.01).check(source, evaluate(says(a=two), data))
    assert not result.passed
    assert "word error rate 0 in the source, 0.02 in the artifact, 0.01 allowed" in result.reasons[0]


def test_characters_are_held_to_their_own_limit(data: Dataset, source: Evaluation) -> None:
    result = Gate().check(source, evaluate(says(c="客観的実"), data))
    assert [check.name for check in result.checks if not check.passed] == ["character error rate"]


def test_words_invented_for_silence_fail_beyond_the_limit(data: Dataset, source: Evaluation) -> None:
    assert Gate().check(source, evaluate(says(silence="you you"), data)).passed
    assert not Gate().check(source, evaluate(says(silence="thanks for watching"), data)).passed


def test_an_artifact_that_hears_the_wrong_language_fails(data: Dataset, source: Evaluation) -> None:
    assert not Gate().check(source, evaluate(lambda clip: Hypothesis(clip.text, "nn"), data)).passed


def test_an_artifact_that_says_nothing_fails(data: Dataset, source: Evaluation) -> None:
    assert not Gate().check(source, evaluate(lambda clip: Hypothesis("", clip.language), data)).passed


def test_an_artifact_better_than_its_source_passes(data: Dataset, source: Evaluation) -> None:
    worse = evaluate(says(a="nothing", silence="so much is invented here"), data)
    assert Gate().check(worse, source).passed


def test_a_clip_that_failed_closes_the_gate(data: Dataset, source: Evaluation) -> None:
    def transcribe(clip: Clip) -> Hypothesis:
        if clip.name == "silence":
            raise AudioError("broken")
        return Hypothesis(clip.text, clip.language)

    failed = evaluate(transcribe, data)
    assert not Gate().check(source, failed).passed
    assert not Gate().check(failed, source).passed
    assert not Gate().check(failed, failed).passed


def test_no_data_and_no_reference_words_close_the_gate(tmp_path: Path) -> None:
    empty = evaluate(says(), Dataset("empty", ()))
    assert not Gate().check(empty, empty).passed
    silence = evaluate(says(), dataset(tmp_path, ("s", "", None, 5.0)))
    assert not Gate().check(silence, silence).passed
    unwritten = evaluate(says(), dataset(tmp_path, ("s", "...", "de", 5.0)))
    assert not Gate().check(unwritten, unwritten).passed


def test_other_data_closes_the_gate(tmp_path: Path, source: Evaluation) -> None:
    other = evaluate(says(), dataset(tmp_path, ("a", TEXT, "de", 10.0)))
    assert not Gate().check(source, other).passed


@pytest.mark.parametrize("place", ["reference", "reached", "limit"])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_closes_the_gate(place: str, value: float | None) -> None:
    values = {"reference": 0.1, "reached": 0.1, "limit": 0.2, place: value}
    assert not Check("rate", **values).passed


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.1", True, None])
def test_a_limit_that_is_no_number_is_an_input_error(value: object) -> None:
    with pytest.raises(InputError, match="max_wer_increase"):
        gate_from({"max_wer_increase": value})  # type: ignore[dict-item]


def test_an_unknown_limit_is_an_input_error_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'max_wer'.*max_wer_increase"):
        gate_from({"max_wer": 0.1})


def test_targets_know_the_limits_that_a_gate_has() -> None:
    assert tuple(field.name for field in dataclasses.fields(Gate)) == sottovoce_targets.GATE_LIMITS


def test_what_was_lost_is_shown_by_stratum_and_by_clip(data: Dataset, source: Evaluation) -> None:
    result = Gate().check(source, evaluate(says(a="word0", silence="thank you so much"), data))
    strata, clips = (table.plain() for table in result.tables())
    assert "WER 49.0%" in strata and "(49 of 100)" in strata and "4 words invented in 60 s" in strata
    assert "49 of 50" in clips and "4 invented" in clips and "thank you so much" in clips
    assert "b" not in [row[0] for row in result.tables()[1].rows]


def test_a_gate_that_does_not_hold_raises_its_reasons_and_exit_code(data: Dataset, source: Evaluation) -> None:
    result = Gate().check(source, evaluate(says(a=""), data))
    with pytest.raises(GateError, match="word error rate") as caught:
        result.require()
    assert caught.value.exit_code == 1 and caught.value.result is result


def test_the_result_is_json_without_paths(tmp_path: Path, data: Dataset, source: Evaluation) -> None:
    text = json.dumps(Gate().check(source, evaluate(says(a=""), data)).to_json(), allow_nan=False)
    assert '"passed": false' in text and str(tmp_path) not in text


def test_a_stream_is_held_to_the_offline_text_of_its_own_bundle(data: Dataset, source: Evaluation) -> None:
    worse = evaluate(says(a=TEXT.replace("word7 word8 ", "")), data)
    held = Gate(max_stream_wer_increase=0.02).check(source, source).with_stream(source, worse)
    assert held.passed and [check.name for check in held.checks[-2:]] == [
        "streaming word error rate",
        "streaming character error rate",
    ]
    result = Gate(max_stream_wer_increase=0.01).check(source, source).with_stream(source, worse)
    assert result.reasons == ("streaming word error rate 0 in the offline text, 0.02 in the stream, 0.01 allowed",)
    assert Gate(max_stream_wer_increase=0.0).check(source, source).with_stream(worse, worse).passed


def test_a_streams_characters_are_held_to_their_own_limit(data: Dataset, source: Evaluation) -> None:
    fewer = evaluate(says(c="客観的実"), data)
    result = Gate(max_stream_cer_increase=0.1).check(source, source).with_stream(source, fewer)
    assert [check.name for check in result.checks if not check.passed] == ["streaming character error rate"]
    assert Gate(max_stream_cer_increase=0.2).check(source, source).with_stream(source, fewer).passed


def test_a_stream_that_fails_or_says_nothing_closes_the_gate(data: Dataset, source: Evaluation) -> None:
    before = Gate().check(source, source)
    failed = Failure(source.results[3].clip, "it is broken")
    broken = dataclasses.replace(source, results=source.results[:3], failures=(failed,))
    spoken = dataclasses.replace(source, results=source.results[:3])
    assert before.with_stream(spoken, broken).reasons == ("stream: 1 clips failed, silence first (it is broken)",)
    assert not before.with_stream(source, spoken).passed
    assert not before.with_stream(source, evaluate(lambda clip: Hypothesis(""), data)).passed
    empty = Evaluation("empty", "", ())
    assert not before.with_stream(empty, empty).passed


def test_with_a_stream_nothing_of_the_comparison_before_is_lost(data: Dataset, source: Evaluation) -> None:
    worse = evaluate(says(a="word0"), data)
    before = Gate(max_wer_increase=0.1).check(source, worse)
    result = before.with_stream(worse, source, title="step 0.3")
    assert result.reasons == before.reasons and not result.passed
    assert (result.source, result.artifact) == (source, worse)
    assert result.checks[: len(before.checks)] == before.checks
    assert [table.title for table in result.tables()] == ["", "clips that lost", "step 0.3"]
    lost = before.with_stream(source, worse).tables()[-1]
    assert lost.heads == ("clip", "offline text", "stream", "text of the stream") and lost.rows[0][0] == "a"
    rows = result.to_json()["checks"]
    assert len(rows) == len(result.checks) and len({tuple(row) for row in rows}) == 1, "one table, whatever is compared"
