"""Plans of a Whisper for LiteRT: the files' bytes, the kernels' copies, what grows with the audio."""

from pathlib import Path

import pytest
from tests.runtime.random_whisper import random_checkpoint

from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.lowerings.litert.precision import LITERT_PRECISIONS
from sottovoce_compiler.lowerings.litert.recipe import recipe
from sottovoce_compiler.lowerings.litert.speech_lowering import lower_litert_speech
from sottovoce_compiler.memory.plan import MemoryPlan
from sottovoce_compiler.memory.planning import plan_speech
from sottovoce_compiler.memory.whisper_litert import plan_whisper_litert
from sottovoce_targets import load_target

TARGET = load_target("linux-x86-64")


@pytest.fixture(scope="module")
def spec() -> WhisperSpec:
    return whisper_spec(random_checkpoint())


def planned(spec: WhisperSpec, precision: str, window: float = 20.0) -> MemoryPlan:
    return plan_whisper_litert(spec, recipe(precision, spec.row_unit), window)


@pytest.mark.parametrize("precision", [*LITERT_PRECISIONS, "encoder fp16, decoder int8, head int4"])
def test_the_files_in_memory_are_those_of_the_bundle(precision: str, spec: WhisperSpec, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    lowered = lower_litert_speech(random_checkpoint(), spec, precision, TARGET, tmp_path, lambda done: None)
    size = sum(path.stat().st_size for path in lowered.files.values() if isinstance(path, Path))
    assert 0 < size - planned(spec, precision).held["file"] < 800_000  # operators, norms, zero points of all rows


def test_less_precise_is_less_memory_and_more_audio_is_more(spec: WhisperSpec) -> None:
    sizes = [planned(spec, precision).most for precision in ("fp32", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    plan = planned(spec, "int8")
    short, piece, stream, long = plan.uses
    assert plan.peak(short) < plan.peak(piece) < min(plan.peak(stream), plan.peak(long))
    assert plan.most == plan.peak(piece), "a stream and batches can be done without"
    narrow = planned(spec, "int8", window=10.0)
    assert narrow.peak(narrow.uses[2]) < plan.peak(stream)


def test_the_weights_are_held_twice_and_halves_are_widened_as_well(spec: WhisperSpec) -> None:
    whole, half = planned(spec, "fp32").held, planned(spec, "fp16").held
    assert whole["packed weights"] == pytest.approx(whole["file"], rel=0.2)
    assert half["file"] < whole["file"] and half["packed weights"] > whole["packed weights"]


def test_a_target_is_planned_for_in_this_format(spec: WhisperSpec) -> None:
    plan = plan_speech(TARGET, "litert", "int8", spec)
    assert plan is not None and "litert" in plan.imports
    assert plan_speech(TARGET, "coreml", "int8", spec) is None, "Apple's engine was not measured"
