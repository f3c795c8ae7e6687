"""The memory benchmark's own parts: its cases, its random models, its table."""

from dataclasses import replace
from pathlib import Path

from memory_cases import CASES, PAIRS, RandomWhisper
from memory_table import markdown
from tests.runtime.random_whisper import random_checkpoint

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.onnx.recipe import recipe
from sottovoce_compiler.lowerings.onnx.speech_lowering import lower_by_recipe
from sottovoce_targets import load_target


def result(**uses: dict[str, float]) -> dict[str, object]:
    case = {"bundle_mb": 43.2, "uses": uses}
    return {
        "date": "2026-01-01",
        "command": "python benchmarks/memory.py",
        "machine": {"cpu": "A processor", "cores": 2, "system": "Linux", "python": "3.11"},
        "versions": {"onnxruntime": "1.32"},
        "cases": {"a": {**case, "fitted": True}, "b": {**case, "fitted": False, "uses": {"short": mb(90, 100)}}},
        "pairs": {"a + b": mb(210, 200)},
    }


def mb(predicted: float, measured: float) -> dict[str, float]:
    return {"predicted_mb": predicted, "measured_mb": measured}


def test_cases_have_names_of_their_own_and_pairs_are_of_cases() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {name for pair in PAIRS for name in pair} <= set(names)
    assert any(case.fitted for case in CASES) and any(not case.fitted for case in CASES)


def test_the_table_has_every_error_and_the_largest_of_what_was_fitted_and_of_what_was_held_out() -> None:
    text = markdown(result(short=mb(102, 100), long=mb(99, 100)))
    assert "- Fitted: 2 figures, off by 1.5% on average and 2.0% at most." in text
    assert "- Held out: 1 figures, off by 10.0% on average and 10.0% at most." in text
    assert "| a* | 43 | short | 102.0 | 100.0 | +2.0% |" in text
    assert "| a + b | 210.0 | 200.0 | +5.0% |" in text


def test_a_random_whisper_has_every_tensor_that_its_graphs_need(tmp_path: Path) -> None:
    checkpoint = random_checkpoint()
    sizes = {"width": 48, "encoder_ffn": 96, "decoder_ffn": 80, "encoder_layers": 3}
    spec = replace(whisper_spec(checkpoint), **sizes)  # type: ignore[arg-type]
    target = load_target("linux-x86-64")
    chosen = recipe("int8", target.arch, frozenset(target.instructions), spec.row_unit)
    lowered = lower_by_recipe(replace(checkpoint, tensors=RandomWhisper(spec)), spec, chosen, target, tmp_path)
    assert len(lowered.files) == 5
