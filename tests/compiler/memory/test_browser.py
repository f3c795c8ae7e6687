"""Plans for a browser's page: what a target whose system is a browser has, and only for what such a page runs."""

from dataclasses import replace

import pytest
from tests.runtime.random_whisper import random_checkpoint

from sottovoce_compiler.families import language_model
from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.memory.plan import MemoryPlan
from sottovoce_compiler.memory.planning import plan_chat, plan_speech
from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_targets import load_target

from ..chat_compile_case import chat_folder

BROWSER = load_target("browser")


@pytest.fixture(scope="module")
def spec() -> WhisperSpec:
    return whisper_spec(random_checkpoint())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(chat_folder(tmp_path_factory.mktemp("chat") / "nano")))


def speech(spec: WhisperSpec, precision: str) -> MemoryPlan:
    plan = plan_speech(BROWSER, "onnx", precision, spec)
    assert plan is not None
    return plan


def test_a_page_takes_more_than_the_device_whose_instructions_are_the_same(spec: WhisperSpec) -> None:
    device = plan_speech(replace(BROWSER, os="linux"), "onnx", "int8", spec)
    page = speech(spec, "int8")
    assert device is not None
    assert page.most > 2 * device.most and list(page.imports) == ["page"]
    short, piece = page.uses
    assert page.peak(short) < page.peak(piece), "longer audio takes more"


def test_quantized_matrices_are_there_in_float32_too_and_so_are_little_smaller_than_float32(spec: WhisperSpec) -> None:
    whole, eight, four = (speech(spec, precision) for precision in ("fp32", "int8", "int4"))
    assert whole.held["widened weights"] == 0
    assert eight.held["widened weights"] == four.held["widened weights"] > 0
    assert eight.held["file"] > four.held["file"]


def test_a_chats_cache_goes_through_javascript_which_has_collected_the_widened_weights_by_then(
    checkpoint: Checkpoint,
) -> None:
    model = language_model(checkpoint)
    wide = replace(BROWSER, chat=replace(BROWSER.chat, context=512))
    plans = [plan_chat(target, "onnx", "int4", model, checkpoint) for target in (wide, BROWSER)]
    assert plans[0] is not None and plans[1] is not None
    short, whole = plans[1].uses
    cache = 2 * model.spec.layers * model.spec.kv_heads * model.spec.head_width * 4
    assert short.adds["cache"] > cache * 512
    assert whole.adds["cache"] >= short.adds["cache"], "the peak of a short use stays the peak of a long one"
    assert plans[0].most <= plans[1].most


@pytest.mark.parametrize("form", ["gguf", "litert", "coreml"])
def test_nothing_is_predicted_of_what_the_page_does_not_run(
    form: str, spec: WhisperSpec, checkpoint: Checkpoint
) -> None:
    assert plan_speech(BROWSER, form, "int8", spec) is None
    assert plan_chat(BROWSER, form, "int8", language_model(checkpoint), checkpoint) is None
