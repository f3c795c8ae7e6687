"""Bundles for Core ML from compile to answer: through the evaluator, and through the engine of macOS over a Core ML
that computes with the evaluator."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import sottovoce
from sottovoce.bundle import open_bundle
from sottovoce.chat.chat import Chat
from sottovoce.engines.coreml import core_ml_chat, core_ml_speech
from sottovoce.engines.coreml_chat import FUNCTIONS, PREFILL
from sottovoce.engines.coreml_files import cache_folder, kept, unpack
from sottovoce.errors import BundleError, EngineError, InputError, MissingExtraError
from sottovoce_compiler.commands import evaluate
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.coreml.stand_in import evaluated_chat, runners
from sottovoce_compiler.lowerings.formats import evaluators, measurable
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.request import Compiled
from sottovoce_compiler.speech_pipeline import Request as SpeechRequest
from sottovoce_compiler.speech_pipeline import lower, manifest_fields
from sottovoce_targets import load_target

from ...chat_compile_case import TEXT, chat_folder, request
from ...whisper_case import checkpoint_of, random_model, sweep

CONTEXT = 256
PROMPT = [int(token) for token in np.random.default_rng(0).integers(3, 280, 150)]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A tiny random chat model, compiled as any is."""
    folder = tmp_path_factory.mktemp("chat")
    text = folder / "text.txt"
    text.write_text(TEXT)
    asked = request(chat_folder(folder / "model"), folder / "chat.svb", eval=text, format="coreml", precision="int8")
    target = replace(asked.target, chat=replace(asked.target.chat, context=CONTEXT))
    return compile_model(replace(asked, target=target))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper without voice activity, as a bundle."""
    folder = tmp_path_factory.mktemp("speech")
    checkpoint = checkpoint_of(random_model())
    asked = SpeechRequest("random", load_target("linux-x86-64"), folder / "x.svb", {}, "fp16", "coreml")
    with patch("sottovoce_compiler.speech_pipeline.fetch_component", return_value=folder):
        spec = whisper_spec(checkpoint)
        lowered = lower(asked, checkpoint, spec, folder, lambda done: None)
        fields = manifest_fields(asked, checkpoint, spec, lowered)
    return write_bundle(folder / "x.svb", fields, {n: f for n, f in lowered.files.items() if n != "vad.onnx"})


class FakeModel:
    """What coremltools' two classes of models do, by the evaluator."""

    compiles = 0

    def __init__(self, path: str, compute_units: object, function_name: str = "main") -> None:
        folder = Path(path)
        source = folder if folder.suffix == ".mlpackage" else folder / "source.mlpackage"
        self.function = runners(source)[function_name]
        self.source, self.work = source, tempfile.TemporaryDirectory()

    def get_compiled_model_path(self) -> str:
        FakeModel.compiles += 1
        made = Path(self.work.name) / "One.mlmodelc"
        shutil.copytree(self.source, made / "source.mlpackage")
        return str(made)

    def make_state(self) -> Any:
        return self.function.new_states()

    def predict(self, inputs: dict[str, Any], state: Any = None) -> dict[str, Any]:
        return dict(self.function.run(inputs, state))


@pytest.fixture
def core_ml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A coremltools that runs models, and a cache of its own."""
    tools: Any = ModuleType("coremltools")
    tools.__version__ = "9.0"
    tools.ComputeUnit = SimpleNamespace(ALL="all", CPU_AND_GPU="both")
    tools.models = SimpleNamespace(MLModel=FakeModel, CompiledMLModel=FakeModel)

    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    FakeModel.compiles = 0
    with patch("sottovoce.engines.coreml._tools", lambda: tools):
        yield tools


def test_a_chat_model_is_compiled_measured_and_held_to_its_gate(compiled: Compiled) -> None:
    report = json.loads(open_bundle(compiled.bundle).read("report.json"))
    assert report["quality"]["kl"] < 0.02
    assert report["gate"]["passed"]
    assert report["measured_with"].startswith("evaluator of Core ML programs")
    assert any("Core ML's own kernels were not run" in note for note in report["notes"])
    assert report["weights"]["share_by_type"] == {"8 bits by row": 1.0}
    manifest = open_bundle(compiled.bundle).manifest
    assert (manifest.engine.name, manifest.engine.opset, manifest.model["context"]) == ("coreml", 9, CONTEXT)


def test_where_there_is_no_core_ml_a_bundle_says_so_and_can_be_measured(
    compiled: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BundleError, match="made for Core ML, which iOS and macOS have; a workstation measures it"):
        Chat(compiled.bundle).load()
    import argparse

    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    (tmp_path / "text.txt").write_text(TEXT)
    args = [str(compiled.bundle), "--against", "none", "--data", str(tmp_path / "text.txt"), "--json"]
    assert evaluate.run(parser.parse_args(args)) == 0
    assert json.loads(capsys.readouterr().out)["perplexity"] > 1


def test_on_macos_evaluate_asks_core_ml_itself(compiled: Compiled) -> None:
    with patch.object(sys, "platform", "darwin"), evaluators():
        from sottovoce.engines.stand_in import stand_in_for

        assert stand_in_for("coreml") is None


def test_a_prompt_in_parts_is_what_its_steps_are_and_a_cut_one_goes_on_from_there(compiled: Compiled) -> None:
    bundle = open_bundle(compiled.bundle)
    engine = evaluated_chat(bundle, 1, None)
    whole = engine.evaluate(PROMPT, outputs=100)
    engine.truncate(0)
    steps = np.concatenate([engine.evaluate([token]) for token in PROMPT])
    assert np.abs(whole - steps[-100:]).max() < 0.02 * np.abs(steps).max()
    engine.truncate(90)
    assert np.abs(engine.evaluate(PROMPT[90:95])[0] - steps[94]).max() < 0.02 * np.abs(steps).max()
    engine.close()


def test_the_last_places_of_the_context_are_used_step_by_step(compiled: Compiled) -> None:
    """A part would write beyond the end there."""
    engine = evaluated_chat(open_bundle(compiled.bundle), 1, None)
    tokens = (PROMPT * 2)[: CONTEXT - 3]
    assert tokens.__len__() % FUNCTIONS[PREFILL]
    engine.evaluate(tokens)
    engine.evaluate([5, 6, 7])
    assert engine.length == CONTEXT
    with pytest.raises(InputError, match=f"{CONTEXT} \\+ 1 tokens exceed the context of {CONTEXT}"):
        engine.evaluate([8])
    for wrong in ([], [300], [-1]):
        with pytest.raises(InputError):
            engine.evaluate(wrong)
    with pytest.raises(InputError, match="room for 1 to 256"):
        evaluated_chat(open_bundle(compiled.bundle), 1, CONTEXT + 1)
    for unable in (engine.save_state, lambda: engine.load_state(b"", 0), lambda: engine.embed([5])):
        with pytest.raises(InputError):
            unable()
    with pytest.raises(InputError, match="Core ML takes no adapter; compile with --adapter"):
        engine.attach(Path("a.gguf"), 1.0)


def test_the_engine_of_macos_says_what_the_evaluator_says(compiled: Compiled, core_ml: ModuleType) -> None:
    bundle = open_bundle(compiled.bundle)
    wanted = evaluated_chat(bundle, 1, None).evaluate(PROMPT)
    engine = core_ml_chat(bundle, None)
    assert (engine.evaluate(PROMPT) == wanted).all()
    assert engine.name == "Core ML (coremltools 9.0)"
    assert FakeModel.compiles == 1
    assert (core_ml_chat(bundle, None).evaluate(PROMPT) == wanted).all()
    assert FakeModel.compiles == 1  # the compiled form was kept


def test_speech_through_the_engine_of_macos(speech: Path, core_ml: ModuleType) -> None:
    engine = core_ml_speech(open_bundle(speech))
    with measurable("coreml"):
        transcriber = sottovoce.Transcriber(speech)
        transcriber.load()
        other = transcriber._loaded.engine if hasattr(transcriber, "_loaded") else None
    tokens = np.array([[257, 258, 262, 5]], np.int64)
    found = engine.start([sweep(2.0)], 8).run(tokens, [3])
    if other is not None:
        assert (other.start([sweep(2.0)], 8).run(tokens, [3]) == found).all()
    assert FakeModel.compiles == 3
    with pytest.raises(BundleError, match="merge it with compile --adapter"):
        engine.attach(None, 1.0)  # type: ignore[arg-type]
    batch = engine.start([sweep(1.0)], 4)
    with pytest.raises(EngineError, match="0 \\+ 5 tokens exceed the capacity of 4"):
        batch.run(np.zeros((1, 5), np.int64), [0])


def test_what_core_ml_says_is_one_line(compiled: Compiled, core_ml: Any) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Error compiling model:\nmany\nlines")

    core_ml.models.MLModel = broken
    with pytest.raises(EngineError, match=r"^Core ML cannot open Model: Error compiling model:$"):
        core_ml_chat(open_bundle(compiled.bundle), None)


def test_without_coremltools_the_extra_is_named(compiled: Compiled) -> None:
    with patch.dict(sys.modules, {"coremltools": None}), pytest.raises(MissingExtraError, match=r"sottovoce\[coreml\]"):
        core_ml_chat(open_bundle(compiled.bundle), None)


def test_a_damaged_file_of_a_package_is_found_when_it_is_copied_out(compiled: Compiled, tmp_path: Path) -> None:
    bundle = open_bundle(compiled.bundle)
    folder = write_bundle(
        tmp_path / "folder", _fields(bundle), {name: bundle.read(name) for name in bundle.manifest.files}
    )
    weights = folder / "Model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    damaged = open_bundle(folder)
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleError, match=r"weight\.bin is damaged"):
        unpack(damaged, "Model", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(BundleError, match=r"has no Other\.mlpackage"):
        unpack(damaged, "Other", tmp_path / "out")


def test_a_package_is_copied_out_once_and_found_again(compiled: Compiled, tmp_path: Path) -> None:
    bundle = open_bundle(compiled.bundle)
    first = kept(bundle, "Model", tmp_path)
    (first / "touched").write_text("")
    assert (kept(bundle, "Model", tmp_path) / "touched").exists()
    assert first.name == "Model.mlpackage"


def test_the_cache_is_where_the_user_has_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOTTOVOCE_CACHE", raising=False)
    assert cache_folder() == Path("~/Library/Caches/sottovoce/coreml").expanduser()


def _fields(bundle: Any) -> dict[str, Any]:
    return {key: value for key, value in bundle.manifest.raw.items() if key not in ("format", "files")}
