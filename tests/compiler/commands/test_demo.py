import argparse
import io
import json
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sottovoce.bench import BenchResult
from sottovoce.errors import InputError
from sottovoce_compiler.commands import demo
from sottovoce_compiler.report.dataset import Clip
from sottovoce_compiler.report.evaluate import Evaluation, evaluate
from sottovoce_compiler.report.gate import Comparison, Gate, GateResult
from sottovoce_compiler.report.hypothesis import Hypothesis

MACHINE = {"cpu": "a processor", "cores": 2, "system": "Linux", "sottovoce": "0", "onnxruntime": "1", "numpy": "2"}


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(words)


def write_wave(path: Path, frames: bytes) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(frames)


def said(dataset: Any, text: str) -> Evaluation:
    return evaluate(lambda clip: Hypothesis(text, "en", 1.0), dataset)


class Transcriber:
    """Gives two segments of whatever it is given."""

    def __init__(self, bundle: Path) -> None:
        assert bundle.exists()

    def transcribe(self, audio: Path, **options: Any) -> tuple[Iterator[Any], None]:
        with wave.open(str(audio)) as file:
            assert file.getnframes() == 4
        return iter([SimpleNamespace(start=0.0, text=" It was"), SimpleNamespace(start=61.0, text=" the best")]), None

    def close(self) -> None:
        pass


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Every step replaced by one that costs nothing; `failures` are what verify finds."""
    from sottovoce_compiler.report.dataset import Dataset

    for number in (1, 2):
        write_wave(tmp_path / f"two-cities-{number}.wav", bytes(4))
    clips = tuple(
        Clip(f"two-cities-{n}.wav", tmp_path / f"two-cities-{n}.wav", "it was the best", "en", 1.0) for n in (1, 2)
    )
    dataset = Dataset("a set", clips)
    found = SimpleNamespace(failures=(), checks=("checksums of 9 files",), requests=[])

    def compile_model(request: Any, progress: Any) -> Any:
        found.requests.append(request)
        request.output.write_bytes(b"bundle")
        both = Comparison(
            ("source", "artifact"), said(dataset, "it was the best"), said(dataset, "it was the"), checks=()
        )
        gate = GateResult(Gate(), (both,))
        return SimpleNamespace(bundle=request.output, bytes=43_200_000, gate=gate)

    bench = BenchResult(0.25, 0.1, 0.02, 120.0, 43_200_000, 42.0, (1.0,), None, MACHINE)
    monkeypatch.setattr(demo, "compile_model", compile_model)
    monkeypatch.setattr(demo, "verify", lambda path: found)
    monkeypatch.setattr(demo, "measure", lambda *ignored: bench)
    monkeypatch.setattr(demo, "builtin_set", lambda: dataset)
    monkeypatch.setattr(demo.sottovoce, "Transcriber", Transcriber, raising=False)
    return found


def row(out: str, name: str) -> str:
    (line,) = (line for line in out.splitlines() if line.startswith(name))
    return line


def test_it_shows_the_text_with_its_times_and_ends_with_the_table(
    steps: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.run(arguments("--target", "raspberry-pi-5")) == 0
    out = capsys.readouterr().out
    assert " 0:00  It was\n 1:01  the best\n" in out
    assert "43.2 MB" in row(out, "bundle ") and "250 ms" in row(out, "load") and "50 times" in row(out, "speed")
    assert "0.0% (0 of 8 words)" in row(out, "word errors, source (fp32)")
    assert "25.0% (2 of 8 words)" in row(out, "word errors, bundle (int8)")


def test_json_is_one_object_and_the_text_goes_to_stderr(
    steps: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.run(arguments("--target", "raspberry-pi-5", "--json")) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["bytes"], found["load_s"], found["transcript"]) == (43_200_000, 0.25, "It was the best")
    assert (found["source"]["wer"], found["artifact"]["wer"]) == (0.0, 0.25)
    assert "It was" in captured.err


def test_nothing_is_left_unless_a_folder_to_keep_is_named(steps: SimpleNamespace, tmp_path: Path) -> None:
    demo.run(arguments("--target", "raspberry-pi-5"))
    assert not steps.requests[0].output.parent.exists()
    demo.run(arguments("--target", "raspberry-pi-5", "--model", "openai/whisper-base", "--keep", str(tmp_path / "x")))
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["two-cities.wav", "whisper-base.svb"]


def test_a_bundle_that_does_not_verify_ends_it_with_1(
    steps: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    steps.failures = ("weights.bin is damaged",)
    assert demo.run(arguments("--target", "raspberry-pi-5")) == 1
    out = capsys.readouterr().out
    assert "FAILED  weights.bin is damaged" in out and "Transcribe" not in out


def test_a_file_in_the_place_of_the_folder_to_keep_is_refused(steps: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="--keep"):
        demo.run(arguments("--target", "raspberry-pi-5", "--keep", str(tmp_path / "x")))


@pytest.mark.parametrize(
    ("model", "name"),
    [("openai/whisper-base", "whisper-base"), ("./../mine/", "mine"), ("pypi:a==1+b==2", "pypi-a--1-b--2")],
)
def test_the_bundle_is_named_after_the_model(model: str, name: str) -> None:
    assert demo._file_name(model) == name


def test_joined_clips_are_one_after_the_other(tmp_path: Path) -> None:
    files: Sequence[Path] = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for file, frames in zip(files, (b"\1\0\2\0", b"\3\0"), strict=True):
        write_wave(file, frames)
    clips = [Clip(file.name, file, "", "en", 1.0) for file in files]
    with wave.open(io.BytesIO(demo.join(clips, tmp_path / "c.wav").read_bytes())) as joined:
        assert (joined.getframerate(), joined.readframes(10)) == (8000, b"\1\0\2\0\3\0")
