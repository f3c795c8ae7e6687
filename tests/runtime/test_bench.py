"""Measuring: the figures add up, the process is a new one, and its failures come back as errors."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.runtime.wave_case import tone, wave

import sottovoce
from sottovoce import bench
from sottovoce.bench import BenchResult, machine_facts, measure, peak_bytes
from sottovoce.cli import main
from sottovoce.errors import EngineError, InputError

KEYS = ["load_s", "first_s", "rtf", "tokens_per_s", "prompt_tokens_per_s", "peak_mb", "bytes"]
RESULT = BenchResult(0.2, 0.3, 0.05, 123.4, 44_000_000, 10.0, (0.5, 0.5), 2, machine_facts())


class SlowTranscriber:
    """Takes 50 ms to load, 20 ms to the first segment and 10 ms to the second, and keeps 60 MB."""

    def __init__(self, path: str, threads: int | None = None) -> None:
        self.kept: bytearray | None = None

    def load(self) -> None:
        time.sleep(0.05)
        self.kept = bytearray(b"\1") * 60_000_000

    def close(self) -> None:
        self.kept = None

    def transcribe(self, audio: Any) -> tuple[Iterator[int], None]:
        def segments() -> Iterator[int]:
            time.sleep(0.02)
            yield 0
            time.sleep(0.01)
            yield 1

        return segments(), None


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that consists of its golden recording."""
    opened = SimpleNamespace(size=1234, read=lambda name: {"golden/case-0.wav": wave(tone(2.0, 16_000))}[name])
    monkeypatch.setitem(sys.modules, "sottovoce.bundle", SimpleNamespace(open_bundle=lambda path: opened))
    monkeypatch.setitem(vars(sottovoce), "Transcriber", SlowTranscriber)


@pytest.mark.usefixtures("bundle")
def test_load_first_result_and_speed_are_what_the_clock_says() -> None:
    result = bench.measure_here("b.svb", None, runs=3, threads=2)
    assert 0.05 <= result.load_s < 1 and 0.02 <= result.first_s < 1
    assert len(result.runs_s) == 3 and min(result.runs_s) >= 0.03
    assert result.rtf == pytest.approx(sorted(result.runs_s)[1] / 2.0, rel=0.01)
    assert (result.bytes, result.audio_s, result.tokens_per_s) == (1234, 2.0, None)


@pytest.mark.usefixtures("bundle")
def test_another_recording_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(wave(tone(0.5, 16_000)))
    assert bench.measure_here("b.svb", str(path), runs=1, threads=None).audio_s == 0.5


def test_the_peak_counts_what_was_taken_since_and_never_sinks() -> None:
    before = peak_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    script = (
        "from sottovoce.bench import peak_bytes; before = peak_bytes()\n"
        "x = bytearray(b'\\1') * 50_000_000; del x\n"
        "print(peak_bytes() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert 45_000_000 < int(done.stdout) < 60_000_000


def test_what_is_wrong_in_the_other_process_comes_back_as_our_error() -> None:
    with pytest.raises(InputError, match=r"gone\.svb"):
        measure("gone.svb", runs=1)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"signal 9 \(out of memory\?\)"),
        ("raise SystemExit('a library is missing')", "exit code 1, a library is missing"),
        ("print('not json')", "exit code 0"),
    ],
)
def test_a_measuring_process_that_dies_is_an_engine_error(
    script: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: real([command[0], "-c", script], **options))
    with pytest.raises(EngineError, match=message):
        measure("b.svb")


def test_machine_facts_name_the_processor_and_the_versions() -> None:
    facts = machine_facts()
    assert facts["cpu"] and facts["cores"] >= 1 and facts["numpy"] and facts["onnxruntime"]


class TestCommand:
    """`sottovoce bench`."""

    @pytest.fixture(autouse=True)
    def measured(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        Path("b.svb").touch()
        monkeypatch.setattr("sottovoce.cli.bench.measure", lambda *arguments: RESULT)

    def test_json_has_the_keys_that_scripts_rely_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "b.svb", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        assert set(KEYS) <= set(data) and data["tokens_per_s"] is None and data["peak_mb"] == 123.4

    def test_the_table_has_every_figure_with_its_unit(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "b.svb"]) == 0
        out = capsys.readouterr().out
        assert all(figure in out for figure in ("200 ms", "300 ms", "20.0 x", "123 MB", "44.0 MB", "onnxruntime"))

    @pytest.mark.parametrize("arguments", [["gone.svb"], ["b.svb", "--runs", "0"], ["b.svb", "--threads", "-1"]])
    def test_bad_input_is_exit_code_2(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
