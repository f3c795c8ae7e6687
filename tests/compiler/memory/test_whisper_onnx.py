from pathlib import Path

import pytest
from tests.runtime.random_whisper import random_checkpoint

from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.lowerings.onnx.graph import WEIGHTS_NAME
from sottovoce_compiler.lowerings.onnx.recipe import PRECISIONS, recipe
from sottovoce_compiler.lowerings.onnx.speech_lowering import lower_by_recipe
from sottovoce_compiler.memory.plan import MemoryPlan
from sottovoce_compiler.memory.whisper_audio import whisper_matrices
from sottovoce_compiler.memory.whisper_onnx import plan_whisper_onnx
from sottovoce_targets import load_target

TARGET = load_target("linux-x86-64")


@pytest.fixture(scope="module")
def spec() -> WhisperSpec:
    return whisper_spec(random_checkpoint())


def planned(spec: WhisperSpec, precision: str, window: float = 20.0) -> MemoryPlan:
    chosen = recipe(precision, TARGET.arch, frozenset(TARGET.instructions), spec.row_unit)
    return plan_whisper_onnx(spec, chosen, window)


@pytest.mark.parametrize("precision", [*PRECISIONS, "encoder fp16, decoder int8, head int4"])
def test_the_matrices_are_those_that_are_stored(precision: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint()
    spec = whisper_spec(checkpoint)
    chosen = recipe(precision, TARGET.arch, frozenset(TARGET.instructions), spec.row_unit)
    lower_by_recipe(checkpoint, spec, chosen, TARGET, tmp_path)
    counted = sum(matrix.stored for matrix in whisper_matrices(spec, chosen))
    # The rest are tables, norms and the spectrum's basis; the vocabulary has most of this narrow model's bytes.
    assert 0 < (tmp_path / WEIGHTS_NAME).stat().st_size - counted < 2_000_000


def test_less_precise_is_less_memory_and_more_audio_is_more(spec: WhisperSpec) -> None:
    sizes = [planned(spec, precision).most for precision in ("fp32", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    plan = planned(spec, "int8")
    short, piece, stream, long = plan.uses
    assert plan.peak(short) < plan.peak(piece) < min(plan.peak(stream), plan.peak(long))
    assert plan.most == plan.peak(piece), "a stream and batches can be done without"
    narrow = planned(spec, "int8", window=10.0)
    assert narrow.peak(narrow.uses[2]) < plan.peak(stream)
