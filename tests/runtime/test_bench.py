"""Measuring: the figures add up, the process is a new one, and its failures come back as errors."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chat_bundle_case import make_chat_bundle
from llama_case import needs_llama
from tests.runtime.wave_case import tone, wave
from tiny_gguf import tiny_gguf

import sottovoce
from sottovoce import bench, bench_chat
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
    """A speech bundle that consists of its golden recording."""
    import sottovoce.chat.loading  # which the real `sottovoce.bundle` is for

    opened = SimpleNamespace(size=1234, read=lambda name: {"golden/case-0.wav": wave(tone(2.0, 16_000))}[name])
    opened.manifest = SimpleNamespace(task="transcribe", engine=SimpleNamespace(name="onnxruntime"))
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


def test_the_library_of_an_engine_is_imported_before_anything_is_measured() -> None:
    pytest.importorskip("ai_edge_litert")
    script = (
        "import sys; from sottovoce.bench_speech import load_engine; load_engine('onnxruntime')\n"
        "assert 'onnxruntime' in sys.modules and 'ai_edge_litert' not in sys.modules\n"
        "load_engine('litert'); assert 'ai_edge_litert.interpreter' in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", context=2048)


@needs_llama
class TestChat:
    """Chat, with a tiny model in llama.cpp."""

    def test_a_gguf_file_is_measured_as_a_chat(self, model: Path) -> None:
        result = bench.measure_here(str(model), None, runs=2, threads=1)
        assert (result.rtf, result.audio_s, result.threads, len(result.runs_s)) == (None, None, 1, 2)
        assert result.bytes == model.stat().st_size and (result.engine or "").startswith("llama.cpp ")
        assert result.load_s > 0 and 0 < result.first_s < 60
        assert result.tokens_per_s and result.prompt_tokens_per_s

    def test_every_run_generates_all_its_tokens_whatever_the_model_would_rather_do(self, model: Path) -> None:
        with sottovoce.Chat(model, threads=1) as chat:
            ready = chat._ready
            short, long = (bench_chat._tokens(ready, count) for count in (bench_chat.SHORT, bench_chat.LONG))
            assert (len(short), len(long)) == (bench_chat.SHORT, bench_chat.LONG)
            assert [bench_chat._timed_run(ready, short, long).tokens for _ in range(2)] == [bench_chat.GENERATED] * 2
            assert ready.engine.length == bench_chat.LONG

    def test_a_context_that_is_too_small_for_it_shortens_the_text(self, tmp_path: Path) -> None:
        model = tiny_gguf(tmp_path / "small.gguf", context=32)
        result = bench.measure_here(str(model), None, runs=1, threads=1)
        assert result.tokens_per_s and result.prompt_tokens_per_s

    def test_a_recording_is_not_for_a_chat(self, model: Path) -> None:
        with pytest.raises(InputError, match="--audio is for speech"):
            bench.measure_here(str(model), "x.wav", runs=1, threads=1)

    def test_the_command_measures_in_another_process(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", str(model), "--runs", "1", "--threads", "1", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        assert set(KEYS) <= set(data) and data["rtf"] is None and data["tokens_per_s"] > 0


def test_a_chat_bundle_for_onnxruntime_is_measured_the_same_way(tmp_path: Path) -> None:
    path = make_chat_bundle(tmp_path / "nano.svb")
    result = measure(path, runs=1, threads=1)
    assert result.rtf is None and result.tokens_per_s and (result.engine or "").startswith("onnxruntime ")
    assert result.bytes == path.stat().st_size


def test_the_table_of_a_chat_has_tokens_a_second_and_no_real_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"rtf": None, "audio_s": None, "tokens_per_s": 45.6, "prompt_tokens_per_s": 789.0}
    result = replace(RESULT, engine="llama.cpp 9", **changes)
    monkeypatch.setattr("sottovoce.cli.bench.measure", lambda *arguments: result)
    path = tmp_path / "b.gguf"
    path.touch()
    assert main(["bench", str(path)]) == 0
    out = capsys.readouterr().out
    assert "45.6 tokens/s" in out and "789.0 tokens/s" in out and "llama.cpp 9" in out and "real time" not in out


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
