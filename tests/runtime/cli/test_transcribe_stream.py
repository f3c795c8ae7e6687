"""`sottovoce transcribe --stream` with a transcriber that says what it was told to."""

import io
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.cli.live_case import SPEECH, FakeTranscriber, committed
from tests.runtime.wave_case import tone, wave

import sottovoce
from sottovoce.cli import main
from sottovoce.cli.transcribe_stream import segments_of
from sottovoce.streaming.events import Committed, SpeechEnded

Capture = pytest.CaptureFixture[str]
STREAM = ["--stream", "--no-pace"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeTranscriber]:
    class Fake(FakeTranscriber):
        made: list[FakeTranscriber] = []  # noqa: RUF012

    monkeypatch.setitem(vars(sottovoce), "Transcriber", Fake)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.wav").write_bytes(wave(tone(5.0, 8000), 8000))
    return Fake


def test_text_comes_a_line_an_utterance(fake: Any, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM]) == 0
    assert tuple(capsys.readouterr()) == ("Ask not what.\nAsk why.\n", "")
    (transcriber,) = fake.made
    assert transcriber.log == ["load", "close"] and transcriber.options == {}
    assert {len(one.samples) for one in transcriber.heard} == {1600} and transcriber.seconds == 5.0


def test_a_recording_keeps_its_pace_unless_told_otherwise(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    class Recording:
        duration = time = 0.0

        def __init__(self, samples: Any, rate: int, *, pace: bool) -> None:
            made.append(pace)

        def __iter__(self) -> Any:
            return iter(())

        def stop(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr("sottovoce.streaming.sources.recording.Recording", Recording)
    assert main(["transcribe", "b.svb", "talk.wav", "--stream"]) == 0
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM]) == 0
    assert made == [True, False]


def test_standard_input_is_read_whole_and_then_streamed(
    fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(wave(tone(1.0, 16_000)))))
    assert main(["transcribe", "b.svb", "-", *STREAM]) == 0
    assert fake.made[0].seconds == 1.0 and capsys.readouterr().out.startswith("Ask")


def test_json_is_the_object_of_transcribe_with_words_if_asked(fake: Any, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    (file,) = data["files"]
    assert data["ok"] and file["text"] == "Ask not what. Ask why."
    assert [(one["id"], one["start"], one["end"]) for one in file["segments"]] == [(1, 0.5, 1.9), (2, 3.0, 3.9)]
    assert (file["language"], file["duration"], file["duration_after_vad"]) == ("en", 5.0, 2.7)
    assert file["language_probability"] is None and "words" not in file["segments"][0]
    assert fake.made[0].options == {"partials": False}
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM, "--json", "--words"]) == 0
    segments = json.loads(capsys.readouterr().out)["files"][0]["segments"]
    assert [word["word"] for word in segments[0]["words"]] == [" Ask", " not", " what."]


def test_subtitles_and_folders_work_as_without_a_stream(fake: Any, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM, "--format", "srt"]) == 0
    srt = capsys.readouterr().out
    assert srt.startswith("1\n00:00:00,500 --> 00:00:01,900\nAsk not what.\n")
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM, "--format", "srt", "-o", "out"]) == 0
    assert Path("out/talk.srt").read_text() == srt
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM, "-o", "out"]) == 0
    assert Path("out/talk.txt").read_text() == "Ask not what.\nAsk why.\n"


def test_options_of_decoding_reach_the_stream(fake: Any) -> None:
    arguments = ["--language", "de", "--task", "translate", "--initial-prompt", "Anna", "--threads", "2"]
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM, *arguments]) == 0
    assert fake.made[0].options == {"language": "de", "task": "translate", "initial_prompt": "Anna"}
    assert fake.made[0].threads == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["talk.wav", "--no-pace"], "--no-pace is for --stream"),
        (["talk.wav", "talk.wav", "--stream"], "one recording at a time, and these are 2"),
        (["talk.wav", "--stream", "--beam-size", "5"], "--beam-size is not for --stream"),
        (["talk.wav", "--stream", "--no-vad"], "--no-vad is not for --stream"),
        (["talk.wav", "--stream", "--temperature", "0"], "--temperature is not for --stream"),
        (["gone.wav", "--stream"], "gone.wav: no such file"),
        (["talk.wav", "--stream", "-o", "talk.wav"], "talk.wav: a file"),
        (["talk.wav", *STREAM, "--language", "xx"], "no language 'xx'"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, fake: Any, capsys: Capture
) -> None:
    assert main(["transcribe", "b.svb", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("format", ["txt", "vtt"])
def test_ctrl_c_keeps_what_was_said_and_tells_where_it_was(fake: Any, format: str, capsys: Capture) -> None:
    def interrupted(self: FakeTranscriber, chunks: Any) -> Any:
        next(iter(chunks))
        os.kill(os.getpid(), signal.SIGINT)
        assert list(chunks) == []  # the source has stopped
        yield from SPEECH

    fake._events = interrupted
    assert main(["transcribe", "b.svb", "talk.wav", *STREAM, "--format", format]) == 130
    captured = capsys.readouterr()
    assert "Ask why." in captured.out and captured.err == "sottovoce: interrupted at 0:00 of 0:05\n"


def test_an_utterance_without_a_pause_is_cut_where_sentences_end() -> None:
    spoken = [committed("One. Two three four five six seven eight nine ten eleven. Twelve", 0.0), SpeechEnded(9.0)]
    assert [one.text for one in segments_of(spoken, words=False)] == [
        " One. Two three four five six seven eight nine ten eleven.",
        " Twelve",
    ]


def test_segments_hold_what_a_stream_tells_and_nan_for_the_rest() -> None:
    (segment,) = segments_of([committed("Ask not")], words=True)  # no end of speech: what is open counts too
    assert segment.words == committed("Ask not").words and segment.temperature == 0.0
    assert segment.avg_logprob == pytest.approx(math.log(0.9)) and math.isnan(segment.no_speech_prob)


def test_a_stream_without_words_has_no_segments() -> None:
    assert list(segments_of([Committed("", (), "en"), SpeechEnded(1.0)], words=False)) == []
