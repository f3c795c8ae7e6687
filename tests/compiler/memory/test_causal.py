"""Plans of language models: matrices as they are stored, caches as the engines allocate them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sottovoce.engines.shapes import ChatShape
from sottovoce_compiler.families import language_model
from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.lowerings.gguf.lowering import FILE, lower_gguf
from sottovoce_compiler.lowerings.litert.causal_lowering import GRAPH, lower_litert
from sottovoce_compiler.lowerings.litert.precision import LITERT_PRECISIONS
from sottovoce_compiler.lowerings.onnx.causal_lowering import lower_onnx
from sottovoce_compiler.lowerings.onnx.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.onnx.graph import WEIGHTS_NAME
from sottovoce_compiler.memory.causal_matrices import causal_matrices
from sottovoce_compiler.memory.plan import MemoryPlan
from sottovoce_compiler.memory.planning import plan_chat
from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_targets import PRECISIONS, Target, load_target

from ..chat_compile_case import chat_folder

TARGET = load_target("linux-x86-64")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(chat_folder(tmp_path_factory.mktemp("chat") / "nano")))


@pytest.fixture
def planned(checkpoint: Checkpoint) -> Callable[..., MemoryPlan]:
    def plan(form: str, precision: str, target: Target = TARGET, model: CausalModel | None = None) -> MemoryPlan:
        found = plan_chat(target, form, precision, model or language_model(checkpoint), checkpoint)
        assert found is not None
        return found

    return plan


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", ["linux-x86-64", "raspberry-pi-4"])
def test_the_matrices_of_a_graph_are_those_that_are_stored(
    precision: str, target: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    arch, instructions = load_target(target).arch, load_target(target).instructions
    model = language_model(checkpoint)
    lower_onnx(model, checkpoint, precision, 512, tmp_path, arch=arch, instructions=instructions)
    recipe = causal_recipe(precision, arch, frozenset(instructions), model.spec)
    counted = sum(matrix.stored for matrix in causal_matrices(model.spec, recipe))
    vectors = (tmp_path / WEIGHTS_NAME).stat().st_size - counted  # norms, rotations and what aligns them
    assert 0 <= vectors < 0.02 * counted + 8192


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4", "q4_0"])
def test_the_weights_of_a_gguf_are_those_of_its_file(
    precision: str, planned: Callable[..., MemoryPlan], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    lower_gguf(language_model(checkpoint), checkpoint, precision, 512, tmp_path)
    size = (tmp_path / FILE).stat().st_size
    without_anew = planned("gguf", precision, load_target("raspberry-pi-4")).held["weights"]
    assert 0 < size - without_anew < 0.05 * size + 16_384  # names and the tokenizer
    if precision in ("int4", "q4_0"):  # copied into another layout where the processor has instructions for it
        assert planned("gguf", precision).held["weights"] > without_anew
    else:
        assert planned("gguf", precision).held["weights"] == without_anew


@pytest.mark.parametrize("precision", LITERT_PRECISIONS)
def test_the_weights_of_a_litert_graph_are_those_of_its_file(
    precision: str, planned: Callable[..., MemoryPlan], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    lower_litert(language_model(checkpoint), checkpoint, precision, 512, tmp_path)
    held = planned("litert", precision).held
    size = (tmp_path / GRAPH).stat().st_size
    assert 0 < size - held["file"] < 0.1 * size + 65_536  # operators, names, scales, norms
    assert held["packed weights"] >= 0.9 * held["file"], "the kernels have a copy of their own"


def test_the_cache_is_what_the_engine_allocates(planned: Callable[..., MemoryPlan], checkpoint: Checkpoint) -> None:
    spec = language_model(checkpoint).spec
    model: dict[str, Any] = {"layers": spec.layers, "kv_heads": spec.kv_heads, "head_width": spec.head_width}
    shape = ChatShape.of({**model, "vocab_size": spec.vocab_size, "context": 4096})
    first, whole = planned("onnx", "int8").uses
    assert first.adds["cache"] == shape.cache_bytes(512) and whole.adds["cache"] == shape.cache_bytes(4096)
    assert planned("gguf", "int8").held["cache"] == shape.cache_bytes(4096) // 2, "in half precision"
    first, whole = planned("litert", "int8").uses
    assert first.adds["cache"] == shape.cache_bytes(512) and whole.adds["cache"] == shape.cache_bytes(4096)


def test_a_plan_for_a_format_that_is_not_known_or_a_model_without_its_tokenizer_is_none(checkpoint: Checkpoint) -> None:
    assert plan_chat(TARGET, "coreml", "int8", language_model(checkpoint), checkpoint) is None
