"""`evaluate --stream` as a user meets it, with a stream that is told what to say."""

import json
from pathlib import Path
from typing import Any

import pytest

from sottovoce.bundle import open_bundle
from sottovoce.cli import main
from sottovoce_compiler.report.dataset import Dataset
from sottovoce_compiler.report.evaluate import Failure
from sottovoce_compiler.report.hypothesis import Hypothesis
from sottovoce_compiler.report.stream import StreamScorecard

from ..report.stream_case import card, clip, scored

asked: list[tuple[dict[str, Any], int | None]] = []


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def evaluate_stream(
        bundle: str, dataset: Dataset, settings: dict[str, Any], threads: int | None, **_: Any
    ) -> StreamScorecard:
        asked.append((settings, threads))
        return card(scored())

    asked.clear()
    monkeypatch.setattr("sottovoce_compiler.report.stream_run.evaluate_stream", evaluate_stream)
    monkeypatch.setattr(
        "sottovoce_compiler.report.artifact.bundle_transcriber", lambda path: lambda clip: Hypothesis("and so")
    )
    (tmp_path / "a.wav").write_bytes(b"")
    line = {"file": "a.wav", "text": "and so my fellow", "language": "en", "seconds": 4.0}
    (tmp_path / "set.jsonl").write_text(json.dumps(line))
    (tmp_path / "x.svb").write_bytes(b"")
    return tmp_path / "x.svb"


def run(bundle: Path, *more: str) -> int:
    return main(["evaluate", str(bundle), "--data", str(bundle.parent / "set.jsonl"), *more])


def test_the_rates_come_first_and_the_scorecard_after_them(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle, "--stream") == 0
    out = capsys.readouterr().out
    assert 0 < out.index("(2 of 4)") < out.index("streamed, compute charged") < out.index("to its commit")


def test_json_is_one_object_with_the_scorecard_beside_the_rates(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--stream", "--json", "--plot", "-") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["wer"] == 0.5 and found["stream"]["word_to_commit_s"]["mean"] == 0.75
    assert "● committed" in captured.err, "the drawing keeps out of the object"


def test_without_the_option_nothing_is_streamed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle, "--json") == 0
    assert "stream" not in json.loads(capsys.readouterr().out) and asked == []


def test_only_what_was_set_and_the_threads_reach_the_stream(bundle: Path) -> None:
    assert run(bundle, "--stream", "--set", "step=0.5", "--set", "hold_back=0.2", "--threads", "2") == 0
    assert asked == [({"step": 0.5, "hold_back": 0.2}, 2)]


def test_a_plot_is_written_and_one_is_drawn_in_the_terminal(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = bundle.parent / "words.png"
    assert run(bundle, "--stream", "--plot", str(plot), "--plot", "-") == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "● committed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--plot", "words.png"], "--plot is about the stream; add --stream"),
        (["--set", "step=1"], "--set is about the stream; add --stream"),
        (["--threads", "2"], "--threads is about the stream; add --stream"),
        (["--stream", "--plot", "words.pdf"], "--plot words.pdf: expected NAME.png"),
        (["--stream", "--plot", "no/words.png"], "--plot no/words.png: expected NAME.png in a folder that exists"),
        (["--stream", "--set", "stride=1"], "--set stride=1: expected NAME=VALUE"),
        (["--stream", "--set", "step=99"], "step = 99.0; 0.05 to 10 is possible"),
    ],
)
def test_options_that_make_no_sense_are_exit_2_before_anything_is_measured(
    more: list[str], said: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, *more) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == "" and asked == []


def test_a_source_cannot_be_streamed_and_a_bundle_must_be_there(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "whisper-tiny.en", "--stream"]) == 2
    assert "whisper-tiny.en is a source; make one with: sottovoce compile" in capsys.readouterr().err
    assert run(bundle.with_name("nowhere.svb"), "--stream") == 2
    assert "there is no bundle" in capsys.readouterr().err


def test_a_clip_that_cannot_be_streamed_is_exit_1_and_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = StreamScorecard("set.jsonl", "", (), {}, None, (Failure(clip("a.wav", "and so"), "it is broken"),))
    monkeypatch.setattr("sottovoce_compiler.report.stream_run.evaluate_stream", lambda *_, **__: failed)
    assert run(bundle, "--stream", "--json") == 1
    captured = capsys.readouterr()
    assert "a.wav: it is broken" in captured.err
    assert json.loads(captured.out)["stream"]["failures"] == [{"clip": "a.wav", "error": "it is broken"}]


@pytest.mark.weights
def test_a_real_bundle_streams_nearly_as_well_as_it_transcribes(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "talk.wav"
    bundle = open_bundle(tiny_bundle)
    recording.write_bytes(bundle.read("golden/case-0.wav"))
    said = json.loads(bundle.read("golden/case-0.json"))["text"]
    manifest = tmp_path / "one.jsonl"
    manifest.write_text(json.dumps({"file": recording.name, "text": said, "language": "en"}))
    assert main(["evaluate", str(tiny_bundle), "--data", str(manifest), "--stream", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["stream"]
    assert found["failures"] == [] and found["wer"] <= found["offline_wer"] + 0.25
    assert found["word_ends"]["matched"] > 0.5 * found["word_ends"]["words"] > 2
    assert found["word_to_commit_s"]["p90"] >= found["word_to_first_partial_s"]["p50"]
