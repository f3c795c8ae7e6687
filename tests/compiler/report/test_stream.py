import json
from dataclasses import replace

import pytest

from sottovoce.streaming.events import SpeechEnded, SpeechStarted
from sottovoce_compiler.report.stream import Offline, StreamScorecard, score_clip
from sottovoce_compiler.report.stream_clock import LiveRun

from .stream_case import STEPS, at, card, clip, committed, scored


def late(seconds: float) -> StreamScorecard:
    """One clip of ten words, each `seconds` late, and one of a single word that is on time."""
    words = [f" w{number}" for number in range(10)]
    ends = tuple((word, 1.0) for word in words)
    many = LiveRun(at((1.0 + seconds, committed("".join(words)))), STEPS, 4.0)
    one = LiveRun(at((1.0, committed(" w0"))), STEPS, 4.0)
    text = "".join(words).strip()
    return card(
        score_clip(clip("a", text), many, Offline(text, ends)), score_clip(clip("b", "w0"), one, Offline("w0", ends))
    )


def test_delays_are_pooled_over_words_and_not_averaged_over_clips() -> None:
    found = late(1.1).to_json()["word_to_commit_s"]
    assert found["mean"] == pytest.approx(1.0) and found["p50"] == pytest.approx(1.1)


def test_errors_stand_beside_those_of_the_whole_clip() -> None:
    found = card(scored("and so my fellow citizens"), scored("and so your fellow")).to_json()
    assert (found["wer"], found["offline_wer"], found["wer_increase"]) == (0.2222, 0.2222, 0.0)
    assert found["words"] == {"substitutions": 1, "deletions": 1, "insertions": 0, "reference": 9}
    worse = card(scored(events=at((2.0, committed(" and my fellow"))))).to_json()
    assert (worse["wer"], worse["offline_wer"], worse["wer_increase"]) == (0.25, 0.0, 0.25)


def test_words_streamed_from_silence_are_invented_and_have_no_delay() -> None:
    run = LiveRun(at((1.0, SpeechStarted(0.5)), (2.0, committed(" And so")), (2.0, SpeechEnded(2.0))), STEPS, 4.0)
    noise = score_clip(clip("n", "", None, 30.0, "noise"), run, Offline("And", ((" And", 1.0),)))
    found = card(scored(), noise).to_json()
    assert found["non_speech"] == {"minutes": 0.5, "invented_words": 2, "offline_invented_words": 1}
    assert found["word_ends"]["words"] == 4 and found["wer"] == 0.0


def test_work_is_charged_against_audio_and_cores() -> None:
    found = card(scored(), scored()).to_json()
    assert found["compute"] == "charged" and found["rtf"] == pytest.approx(0.42 / 4)
    assert found["cores_busy"] == {"speech": 0.4, "silence": 0.015}
    assert found["share_of_cores"] == {"speech": 0.2, "silence": 0.0075}
    assert (found["max_lag_s"], found["end_lag_s"], found["peak_mb"], found["threads"]) == (0.4, 0.0, 120.5, 2)
    assert found["machine"]["cpu"] == "a processor"


def test_where_compute_is_free_no_figure_can_be_taken_for_a_charged_one() -> None:
    free = card(scored(), charged=False).to_json()
    charged = card(scored()).to_json()
    assert free["compute"] == "not charged"
    assert set(free) - set(charged) == {"word_to_commit_without_compute_s", "word_to_first_partial_without_compute_s"}
    assert not {"word_to_commit_s", "rtf", "machine", "peak_mb", "cores_busy", "max_lag_s"} & set(free)


def test_decodings_are_counted_only_where_every_run_tells_them() -> None:
    told = replace(scored(), run=replace(scored().run, decodings=10))
    assert card(told, told).to_json()["decodings_per_s"] == 2.5
    assert card(told, scored()).to_json()["decodings_per_s"] is None


def test_the_json_is_json_and_names_the_settings() -> None:
    found = card(scored()).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["settings"]["step"] == 0.3 and found["word_ends"]["matched"] == 4


def test_a_dataset_without_speech_gives_no_rate_and_no_delay() -> None:
    empty = card()
    found = empty.to_json()
    assert (found["wer"], found["word_to_commit_s"], found["rtf"], found["rewritten_words_per_word"]) == (None,) * 4
    assert empty.tables()


def test_the_tables_say_what_was_charged_and_the_figures() -> None:
    text = "\n".join(table.plain() for table in card(scored()).tables())
    assert "compute charged" in text and "step 0.3, hold_back 0.5\n" in text
    assert "seconds, over 4 of 4 words" in text
    assert ["to", "its", "commit", "0.75", "0.75", "1.00", "1.00"] in [line.split() for line in text.splitlines()]
    assert "0.40 of 2 (20.0%)" in text and "120 MB above the imports" in text
    free = "\n".join(table.plain() for table in card(scored(), charged=False).tables())
    assert "compute not charged" in free and "cores used" not in free
