"""`sottovoce transcribe` with a transcriber that hears nothing: files, formats, and one bad among many."""

import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.wave_case import tone, wave

import sottovoce
from sottovoce.cli import main
from sottovoce.errors import AudioError, EngineError, InputError
from sottovoce.types import Segment, TranscriptionInfo

Results = tuple[Iterator[Segment], TranscriptionInfo]


class FakeTranscriber:
    """Says how long each recording is, one segment a second."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012  # reset by the fixture
    batches: list[int] = []  # noqa: RUF012
    breaks_at: float | None = None  # seconds

    def __init__(self, path: str, threads: int | None = None) -> None:
        self.calls.append(("open", {"path": path, "threads": threads}))

    def load(self) -> None:
        self.calls.append(("load", {}))

    def close(self) -> None:
        self.calls.append(("close", {}))

    def transcribe(self, audio: Any, **options: Any) -> Results:
        self.calls.append(("transcribe", options))
        if options.get("language") == "xx":
            raise InputError("no language 'xx'")
        seconds = len(audio) / 16_000
        return self._segments(seconds), TranscriptionInfo("en", 1.0, seconds, seconds)

    def transcribe_batch(self, audio: list[Any], **options: Any) -> list[tuple[list[Segment], TranscriptionInfo]]:
        self.batches.append(len(audio))
        if self.breaks_at is not None and any(len(each) / 16_000 >= self.breaks_at for each in audio):
            raise EngineError("a run broke off")
        results = [self.transcribe(each, **options) for each in audio]
        return [(list(segments), info) for segments, info in results]

    def _segments(self, seconds: float) -> Iterator[Segment]:
        for second in range(max(1, round(seconds))):
            if self.breaks_at is not None and second >= self.breaks_at:
                raise EngineError("a run broke off")
            yield Segment(second, second, second + 1, f" s{second}", (), -0.1, 0.0, 1.0, 0.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeTranscriber]:
    class Fake(FakeTranscriber):
        calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
        batches: list[int] = []  # noqa: RUF012

    monkeypatch.setitem(vars(sottovoce), "Transcriber", Fake)
    return Fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with recordings of 2, 3 and 40 seconds and two that are none."""
    monkeypatch.chdir(tmp_path)
    for name, seconds in (("two", 2), ("three", 3), ("forty", 40)):
        (tmp_path / f"{name}.wav").write_bytes(wave(tone(seconds, 16_000)))
    (tmp_path / "text.wav").write_text("no sound here")
    (tmp_path / "empty.wav").touch()
    return tmp_path


Capture = pytest.CaptureFixture[str]


def test_text_goes_to_stdout_and_nothing_else_is_said(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav"]) == 0
    assert tuple(capsys.readouterr()) == ("s0\ns1\n", "")
    assert [name for name, _ in fake.calls] == ["open", "load", "transcribe", "close"]


def test_options_not_given_are_left_to_the_transcriber(fake: Any, folder: Path) -> None:
    main(["transcribe", "b.svb", "two.wav"])
    assert fake.calls[0][1] == {"path": "b.svb", "threads": None} and fake.calls[2][1] == {}


def test_options_given_reach_the_transcriber_under_their_own_names(fake: Any, folder: Path) -> None:
    flags = [
        "--words",
        "--language",
        "de",
        "--task",
        "translate",
        "--beam-size",
        "5",
        "--batch-size",
        "4",
        "--no-vad",
        "--threads",
        "3",
    ]
    flags += ["--temperature", "0,0.4"]
    assert main(["transcribe", "b.svb", "two.wav", "--initial-prompt", "Anna", *flags]) == 0
    assert fake.calls[0][1]["threads"] == 3
    expected: dict[str, Any] = {
        "word_timestamps": True,
        "language": "de",
        "task": "translate",
        "beam_size": 5,
        "batch_size": 4,
        "initial_prompt": "Anna",
        "temperature": (0.0, 0.4),
        "vad_filter": False,
    }
    assert fake.calls[2][1] == expected
    sottovoce.TranscribeOptions(**expected)  # every one is an option there


@pytest.mark.parametrize(
    "arguments",
    [
        ["--beam-size", "0"],
        ["--threads", "two"],
        ["--temperature", "hot"],
        ["--temperature", "0,9"],
        ["--task", "sing"],
        ["--format", "doc"],
    ],
)
def test_a_wrong_option_is_bad_usage_before_anything_is_loaded(
    arguments: list[str], fake: Any, folder: Path, capsys: Capture
) -> None:
    assert main(["transcribe", "b.svb", "two.wav", *arguments]) == 2
    err = capsys.readouterr().err
    assert arguments[1].split(",")[-1] in err and err.count("\n") == 1 and fake.calls == []


@pytest.mark.parametrize("source", ["missing.wav", "empty.wav", "text.wav", "."])
def test_a_single_bad_recording_is_exit_code_2(source: str, fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", source]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"sottovoce: error: {source}: ")
    assert captured.err.count("\n") == 1


def test_one_bad_recording_does_not_lose_the_others(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "text.wav", "three.wav", "gone.wav", "-o", "out"]) == 1
    assert {path.name: path.read_text() for path in (folder / "out").iterdir()} == {
        "two.txt": "s0\ns1\n",
        "three.txt": "s0\ns1\ns2\n",
    }
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert [line.split(": ")[2] for line in errors] == ["text.wav", "gone.wav"]


def test_when_every_recording_is_bad_it_is_exit_code_2(fake: Any, folder: Path) -> None:
    assert main(["transcribe", "b.svb", "text.wav", "gone.wav"]) == 2


def test_a_wrong_language_ends_it_all_with_one_error(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "three.wav", "--language", "xx"]) == 2
    assert capsys.readouterr().err == "sottovoce: error: no language 'xx'\n"


def test_several_recordings_on_stdout_stand_under_their_names(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "three.wav"]) == 0
    assert capsys.readouterr().out == "==> two.wav <==\ns0\ns1\n\n==> three.wav <==\ns0\ns1\ns2\n"


def test_short_recordings_are_decoded_together_and_long_ones_alone(fake: Any, folder: Path, capsys: Capture) -> None:
    sources = ["two.wav", "three.wav", "two.wav", "forty.wav", "three.wav", "two.wav"]
    assert main(["transcribe", "b.svb", *sources, "--batch-size", "2"]) == 0
    assert fake.batches == [2, 2]
    titles = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("==>")]
    assert titles == sources


def test_a_failing_batch_is_taken_apart_to_find_whose_failure_it_is(fake: Any, folder: Path, capsys: Capture) -> None:
    fake.breaks_at = 2
    assert main(["transcribe", "b.svb", "two.wav", "three.wav", "-o", "out"]) == 1
    assert (folder / "out" / "two.txt").read_text() == "s0\ns1\n"


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv"])
def test_several_recordings_in_one_subtitle_file_are_refused(
    format: str, fake: Any, folder: Path, capsys: Capture
) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "three.wav", "--format", format]) == 2
    assert "-o DIR" in capsys.readouterr().err and fake.calls == []


def test_a_file_for_each_recording_in_a_folder_that_is_made(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "three.wav", "--format", "srt", "-o", "a/b"]) == 0
    assert sorted(os.listdir("a/b")) == ["three.srt", "two.srt"]
    assert "00:00:01,000 --> 00:00:02,000\ns1\n" in Path("a/b/two.srt").read_text()
    assert tuple(capsys.readouterr()) == ("", "wrote a/b/two.srt\nwrote a/b/three.srt\n")


def test_a_recording_that_breaks_off_leaves_no_half_file_and_keeps_the_old_one(fake: Any, folder: Path) -> None:
    Path("out").mkdir()
    Path("out/forty.txt").write_text("the old one")
    fake.breaks_at = 5
    assert main(["transcribe", "b.svb", "forty.wav", "-o", "out"]) == 1
    assert os.listdir("out") == ["forty.txt"] and Path("out/forty.txt").read_text() == "the old one"


def test_a_full_disk_is_told_with_the_file_that_is_missing(
    fake: Any, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*paths: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    assert main(["transcribe", "b.svb", "two.wav", "-o", "out"]) == 1
    assert capsys.readouterr().err == "sottovoce: error: out/two.txt: No space left on device\n"
    assert list((folder / "out").iterdir()) == []


def test_two_recordings_that_would_overwrite_one_another_are_refused(fake: Any, folder: Path, capsys: Capture) -> None:
    (folder / "sub").mkdir()
    assert main(["transcribe", "b.svb", "two.wav", "sub/two.wav", "-o", "out"]) == 2
    assert "two.wav and sub/two.wav would both" in capsys.readouterr().err and not Path("out").exists()


def test_an_output_folder_that_is_a_file_is_refused(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "-o", "text.wav"]) == 2
    assert "text.wav: a file" in capsys.readouterr().err


def test_json_is_one_object_for_all_recordings_with_the_errors_in_it(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "text.wav", "forty.wav", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is False and [file["file"] for file in data["files"]] == [
        "two.wav",
        "text.wav",
        "forty.wav",
    ]
    assert data["files"][0]["text"] == "s0 s1" and len(data["files"][2]["segments"]) == 40
    assert "not a recording" in data["files"][1]["error"]


def test_json_beside_a_folder_writes_the_files_and_names_them(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "--json", "-o", "out", "--format", "vtt"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is True and data["files"][0]["output"] == "out/two.vtt" and Path("out/two.vtt").exists()


def test_a_recording_that_breaks_off_is_an_error_in_the_json(fake: Any, folder: Path, capsys: Capture) -> None:
    fake.breaks_at = 5
    assert main(["transcribe", "b.svb", "forty.wav", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["files"] == [{"file": "forty.wav", "error": "a run broke off"}]


def test_the_json_format_is_one_object_a_recording(fake: Any, folder: Path, capsys: Capture) -> None:
    assert main(["transcribe", "b.svb", "two.wav", "three.wav", "--format", "json"]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == [
        "s0 s1",
        "s0 s1 s2",
    ]


def test_standard_input_is_a_recording_too(
    fake: Any, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(wave(tone(2, 8000), 8000)))
    monkeypatch.setattr("sys.stdin", stream)
    assert main(["transcribe", "b.svb", "-"]) == 0
    assert capsys.readouterr().out == "s0\ns1\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["transcribe", "b.svb", "-"]) == 2
    assert capsys.readouterr().err == "sottovoce: error: standard input: empty (0 bytes)\n"


def test_standard_input_twice_is_refused(fake: Any, folder: Path) -> None:
    assert main(["transcribe", "b.svb", "-", "-"]) == 2


def test_text_is_printed_as_it_is_decoded(fake: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    seen_by_decoder: list[str] = []

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            printed.append(text)
            return len(text)

    class Watching(FakeTranscriber):
        def _segments(self, seconds: float) -> Iterator[Segment]:
            for segment in super()._segments(seconds):
                seen_by_decoder.append("".join(printed))
                yield segment

    monkeypatch.setitem(vars(sottovoce), "Transcriber", Watching)
    monkeypatch.setattr("sys.stdout", Screen())
    assert main(["transcribe", "b.svb", "three.wav"]) == 0
    assert seen_by_decoder == ["", "s0\n", "s0\ns1\n"]


def test_a_nan_in_a_recording_is_told_with_its_place(fake: Any, folder: Path, capsys: Capture) -> None:
    samples = tone(1.0, 16_000)
    samples[8000] = np.nan
    (folder / "nan.wav").write_bytes(wave(samples, kind="f32"))
    assert main(["transcribe", "b.svb", "nan.wav"]) == 2
    assert "1 samples are not finite" in capsys.readouterr().err


def test_an_error_while_decoding_one_recording_is_its_own(fake: Any, folder: Path, capsys: Capture) -> None:
    def refuse(self: Any, audio: Any, **options: Any) -> Results:
        raise AudioError("too strange")

    fake.transcribe = refuse
    assert main(["transcribe", "b.svb", "forty.wav", "two.wav"]) == 2
    assert capsys.readouterr().err.count("too strange") == 2


def test_an_error_of_the_engine_is_told_with_the_recording(fake: Any, folder: Path, capsys: Capture) -> None:
    fake.breaks_at = 1.0
    assert main(["transcribe", "b.svb", "two.wav", "-o", "out"]) == 1
    assert capsys.readouterr().err == "sottovoce: error: two.wav: a run broke off\n"
