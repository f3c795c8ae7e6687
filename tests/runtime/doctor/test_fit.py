"""Whether a bundle fits: what its report predicts, else its weights; and then it is tried."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llama_case import needs_llama
from tiny_gguf import tiny_gguf

from sottovoce.bench import BenchResult
from sottovoce.doctor import fit
from sottovoce.doctor.fit import check_fit
from sottovoce.errors import BundleError, EngineError, SottovoceError

# 2 x 10 x 4 x 64 values a token: 20.48 MB for 2000 tokens of two bytes.
SHAPE = {"layers": 10, "kv_heads": 4, "head_width": 64, "context": 2000}
SPEECH = BenchResult(0.2, 0.3, 0.05, 123.4, 44_000_000, 10.0, (0.5,), 2, {}, process_mb=190.4)
CHAT = replace(SPEECH, rtf=None, audio_s=None, tokens_per_s=12.0, prompt_tokens_per_s=80.0)


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A bundle of 100 MB that runs here; its fields can be changed, `report` and `trial` among them."""
    import sottovoce.chat.loading  # noqa: F401  # which the real `sottovoce.bundle` is for

    opened = SimpleNamespace(size=100_000_000, check_runtime=lambda: [], path=tmp_path / "b.svb", trial=SPEECH)
    opened.manifest = SimpleNamespace(task="transcribe", model=dict(SHAPE), engine=SimpleNamespace(name="llama.cpp"))
    opened.report = lambda: {}
    opened.path.touch()

    def measure(path: Path, *, runs: int, brief: bool) -> BenchResult:
        assert path == opened.path and runs == 1 and brief
        if isinstance(opened.trial, SottovoceError):
            raise opened.trial
        assert isinstance(opened.trial, BenchResult), "it must not be tried"
        return opened.trial

    monkeypatch.setitem(sys.modules, "sottovoce.bundle", SimpleNamespace(open_bundle=lambda path: opened))
    monkeypatch.setattr(fit, "reported_bytes", lambda: 500_000_000)
    monkeypatch.setattr(fit, "measure", measure)
    return opened


def test_a_bundle_that_was_tried_has_its_speed_and_the_memory_it_took(bundle: SimpleNamespace) -> None:
    found = check_fit(bundle.path)
    assert found.fits and (found.measured_mb, found.predicted_mb, found.rtf, found.load_s) == (190, None, 0.05, 0.2)
    bundle.trial = CHAT
    assert check_fit(bundle.path).tokens_per_s == 12.0


def test_a_bundle_larger_than_the_memory_is_not_tried(bundle: SimpleNamespace) -> None:
    bundle.size, bundle.trial = 600_000_000, None
    found = check_fit(bundle.path)
    assert not found.fits and found.predicted_mb is None
    assert found.reasons == (f"{bundle.path}: 600 MB of weights, and 500 MB of memory are free",)


@pytest.mark.parametrize(("predicted", "fits"), [(480, True), (480.5, True), (501, False)])
def test_what_the_report_predicts_decides(predicted: float, fits: bool, bundle: SimpleNamespace) -> None:
    bundle.report = lambda: {"memory": {"peak_mb": 3, "with_imports_mb": predicted}}
    bundle.trial = SPEECH if fits else None
    found = check_fit(bundle.path)
    assert found.fits is fits and found.predicted_mb == int(predicted)
    if not fits:
        assert found.reasons == (f"{bundle.path}: 501 MB are needed, by its report, and 500 MB of memory are free",)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"memory": None},
        {"memory": [1]},
        *({"memory": {"with_imports_mb": value}} for value in (None, "300", True, -1, 0, float("nan"), 1e300, [])),
    ],
)
def test_a_report_that_says_nothing_sensible_is_as_none(report: Mapping[str, Any], bundle: SimpleNamespace) -> None:
    bundle.report = lambda: report
    found = check_fit(bundle.path)
    assert found.fits and found.predicted_mb is None and found.measured_mb == 190


def test_a_bundle_that_fails_when_it_is_tried_cannot_run(bundle: SimpleNamespace) -> None:
    bundle.trial = EngineError("the measuring process ended early: killed by signal 9 (out of memory?)")
    found = check_fit(bundle.path)
    assert not found.fits and "out of memory" in found.reasons[0] and str(bundle.path) in found.reasons[0]


@pytest.mark.parametrize(("engine", "cache"), [("llama.cpp", 20), ("onnxruntime", 41)])
def test_a_chat_bundle_needs_memory_for_its_context_too(
    engine: str, cache: int, bundle: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.manifest.task, bundle.manifest.engine.name, bundle.trial = "chat", engine, CHAT
    assert check_fit(bundle.path).fits
    monkeypatch.setattr(fit, "reported_bytes", lambda: 110_000_000)
    said = f"100 MB of weights and {cache} MB of memory for 2000 tokens, and 110 MB of memory are free"
    assert check_fit(bundle.path).reasons == (f"{bundle.path}: {said}",)
    bundle.manifest.task = "transcribe"
    assert check_fit(bundle.path).fits


@pytest.mark.parametrize("value", [None, 0, "8", True, 1 << 40])
def test_a_chat_bundle_whose_numbers_are_absurd_cannot_run(value: object, bundle: SimpleNamespace) -> None:
    bundle.manifest.task = "chat"
    bundle.manifest.model["layers"] = value
    found = check_fit(bundle.path)
    assert not found.fits and "layers" in found.reasons[0]


def test_a_bundle_that_this_machine_cannot_run_says_why_and_is_not_tried(bundle: SimpleNamespace) -> None:
    def refuse() -> list[str]:
        raise BundleError("needs a processor with avx512f")

    bundle.check_runtime, bundle.trial = refuse, None
    assert check_fit(bundle.path).reasons == ("needs a processor with avx512f",)


def test_memory_that_cannot_be_asked_for_is_a_note(bundle: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "reported_bytes", lambda: None)
    found = check_fit(bundle.path)
    assert found.fits and "memory" in found.notes[0]


def test_some_memory_is_available() -> None:
    available = fit.reported_bytes()
    assert available is None or available > 1_000_000


@needs_llama
def test_a_gguf_file_is_judged_by_its_weights_and_context_and_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    found = check_fit(path)
    assert found.fits and "plain GGUF file" in found.notes[0] and (found.tokens_per_s or 0) > 0
    monkeypatch.setattr(fit, "reported_bytes", lambda: 1_000_000)
    refused = check_fit(path)
    assert not refused.fits and "memory for 256 tokens" in refused.reasons[0]
    path.write_bytes(path.read_bytes()[:100])
    assert not check_fit(path).fits
