import argparse
import json
from pathlib import Path

import pytest

from sottovoce.errors import AudioError, InputError
from sottovoce_compiler.commands import evaluate, targets
from sottovoce_compiler.report.dataset import Clip
from sottovoce_compiler.report.hypothesis import Hypothesis


def arguments(command: "object", *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)  # type: ignore[attr-defined]
    return parser.parse_args(words)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "b.wav").write_bytes(b"")
    lines = [{"file": name, "text": "hello there", "language": "en", "seconds": 1.0} for name in ("a.wav", "b.wav")]
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def transcribe(clip: Clip) -> Hypothesis:
        if clip.text == "broken":
            raise AudioError("it is broken")
        return Hypothesis("hello", "en", 0.9)

    monkeypatch.setattr("sottovoce_compiler.report.artifact.bundle_transcriber", lambda path: transcribe)
    path = tmp_path / "x.svb"
    path.write_bytes(b"")
    return path


def test_targets_lists_all_as_a_table_and_as_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert targets.run(arguments(targets)) == 0
    assert "raspberry-pi-5" in capsys.readouterr().out
    assert targets.run(arguments(targets, "--json")) == 0
    assert "raspberry-pi-5" in [one["name"] for one in json.loads(capsys.readouterr().out)["targets"]]


def test_targets_shows_one_with_its_gate_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    assert targets.run(arguments(targets, "raspberry-pi-4")) == 0
    out = capsys.readouterr().out
    assert "Cortex-A72" in out and "gate: max_wer_increase" in out and "No dot product" in out
    assert targets.run(arguments(targets, "raspberry-pi-4", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["cores"] == 4


def test_targets_shows_the_streaming_settings_or_that_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    targets.run(arguments(targets, "linux-x86-64"))
    assert "stream: hold_back" in capsys.readouterr().out
    targets.run(arguments(targets, "raspberry-pi-5"))
    out = capsys.readouterr().out
    assert "stream: " not in out and "Streaming settings were not measured here" in out


def test_targets_refuses_an_unknown_name() -> None:
    with pytest.raises(InputError, match="'pi'"):
        targets.run(arguments(targets, "pi"))


def test_evaluate_prints_one_json_object_for_a_bundle(
    bundle: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.run(arguments(evaluate, str(bundle), "--data", str(manifest), "--json")) == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["wer"], measured["words"], measured["dataset"]["name"]) == (0.5, 4, "set.jsonl")


def test_evaluate_shows_counts_by_stratum(bundle: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.run(arguments(evaluate, str(bundle), "--data", str(manifest)))
    out = capsys.readouterr().out
    assert "(2 of 4)" in out and "short" in out and "language:en" in out


def test_evaluate_ends_with_1_and_names_the_clip_that_failed(
    bundle: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest.write_text(manifest.read_text().replace("hello there", "broken", 1))
    assert evaluate.run(arguments(evaluate, str(bundle), "--data", str(manifest), "--json")) == 1
    captured = capsys.readouterr()
    assert "a.wav: it is broken" in captured.err
    assert json.loads(captured.out)["failures"] == [{"clip": "a.wav", "error": "it is broken"}]


def test_a_bundle_that_is_not_there_is_an_input_error(manifest: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.svb"):
        evaluate.run(arguments(evaluate, "nowhere.svb", "--data", str(manifest)))


def test_a_folder_is_a_bundle_by_its_manifest_and_a_name_is_a_source(tmp_path: Path) -> None:
    assert not evaluate.is_bundle(str(tmp_path)) and not evaluate.is_bundle("whisper-base")
    (tmp_path / "manifest.json").write_text("{}")
    assert evaluate.is_bundle(str(tmp_path)) and evaluate.is_bundle("anything.svb")
