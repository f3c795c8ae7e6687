import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.random_whisper import random_checkpoint

from sottovoce.bundle import open_bundle
from sottovoce.errors import InputError, SottovoceError
from sottovoce.loading import Loaded
from sottovoce_compiler import speech_pipeline
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.families.whisper_tensors import check_tensors
from sottovoce_compiler.lowerings.lowered import Lowered
from sottovoce_compiler.lowerings.onnx.graph import WeightFile
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.report.gate import GateError
from sottovoce_compiler.request import STAGES
from sottovoce_compiler.sources import resolve
from sottovoce_compiler.speech_pipeline import lower, manifest_fields
from sottovoce_targets import load_target

from .pipeline_case import compile_to, nothing_slow, request
from .whisper_case import VOCABULARY, random_model, sweep


@pytest.fixture(params=["x.svb", "x"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / str(request.param)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def test_the_stages_come_in_their_order_and_a_bundle_stands_alone(output: Path) -> None:
    seen: list[str] = []
    compiled = compile_to(output, lambda stage, done: seen.append(stage))
    assert tuple(dict.fromkeys(seen)) == tuple(stage for stage in STAGES if stage != "compare formats")
    assert compiled.bundle == output and names(output.parent) == [output.name]
    bundle = open_bundle(output)
    assert bundle.check_all() == []
    assert compiled.bytes == sum(len(data) for data in content(output).values())
    assert bundle.report() == compiled.report
    assert bundle.manifest.name == "random" and bundle.manifest.precision == "int8"
    assert set(bundle.manifest.files) == {
        *("encoder.onnx", "decoder.onnx", "weights.bin", "tokens.bin", "vad.onnx", "report.json"),
        *("encoder-adapted.onnx", "decoder-adapted.onnx", "golden/case-0.json"),
    }


def test_two_compiles_give_the_same_bytes(output: Path) -> None:
    compile_to(output)
    first = content(output)
    compile_to(output)
    assert content(output) == first


def test_heads_that_nobody_published_are_measured_and_lowered(output: Path) -> None:
    compile_to(output)
    assert open_bundle(output).manifest.model["alignment_heads"] == 2


def test_no_path_and_no_temporary_name_is_in_any_file(output: Path) -> None:
    compile_to(output)
    for name, data in content(output).items():
        assert str(output.parent).encode() not in data, name
        assert b".sottovoce-" not in data, name


def test_a_gate_that_does_not_hold_leaves_nothing(output: Path) -> None:
    with pytest.raises(GateError, match=r"the gate does not hold: word error rate 0 in the source, 0\.75"):
        compile_to(output, artifact="the")
    assert names(output.parent) == []


def test_a_stream_that_is_worse_than_its_limit_leaves_nothing(output: Path) -> None:
    said = r"does not hold: streaming word error rate 0 in the offline text, 0\.75 in the stream, 0\.03 allowed"
    with pytest.raises(GateError, match=said) as caught:
        compile_to(output, stream="the")
    assert names(output.parent) == []
    assert "clips that lost" in [table.title for table in caught.value.result.tables()]


def test_the_check_of_the_stream_is_in_the_report(output: Path) -> None:
    checks = compile_to(output).report["gate"]["checks"]
    assert checks[-1] == {
        "name": "streaming word error rate",
        "reference": 0.0,
        "reached": 0.0,
        "limit": 0.03,
        "passed": True,
    }


def test_a_targets_streaming_settings_are_in_the_manifest_and_absent_where_it_has_none(output: Path) -> None:
    compile_to(output)
    settings = load_target("linux-x86-64").stream
    assert settings and open_bundle(output).manifest.raw["stream"] == settings
    with nothing_slow():
        compile_model(replace(request(output), target=load_target("raspberry-pi-4")))
    assert "stream" not in open_bundle(output).manifest.raw and open_bundle(output).manifest.stream == {}


def test_parts_of_different_precision_are_in_the_manifest_the_report_and_the_weights(output: Path) -> None:
    mixed = "encoder fp32, decoder int8, head int4"
    with nothing_slow():
        compiled = compile_model(request(output, mixed))
    stored = compiled.report["cost"]["precision"]
    assert open_bundle(output).manifest.precision == mixed
    assert stored["encoder"] == "float32" and stored["head"].startswith("int4") and stored["decoder"].startswith("int8")


def test_the_first_format_of_the_target_that_can_be_made_is_made_and_others_are_refused_by_name(output: Path) -> None:
    target = replace(load_target("linux-x86-64"), formats=("gguf", "onnx"))
    with nothing_slow():
        compile_model(replace(request(output), target=target))
        assert open_bundle(output).manifest.engine.name == "onnxruntime"
        only = replace(target, name="phone", formats=("gguf",))
        with pytest.raises(InputError, match=r"target phone runs gguf, which this compiler does not make.*--format"):
            compile_model(replace(request(output), target=only))


def test_a_gate_that_does_not_hold_leaves_the_bundle_that_was_there(output: Path) -> None:
    compile_to(output)
    before = content(output)
    with pytest.raises(GateError):
        compile_to(output, artifact="")
    assert content(output) == before and names(output.parent) == [output.name]


@pytest.mark.parametrize("stage", ["lower", "pack", "measure source", "seal"])
def test_whatever_breaks_a_stage_leaves_nothing(stage: str, output: Path) -> None:
    def progress(now: str, done: float) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_to(output, progress)
    assert names(output.parent) == []


def test_a_disk_that_fills_while_lowering_is_one_error_and_leaves_nothing(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = WeightFile.add

    def full(self: WeightFile, array: object) -> object:
        if self.path.stat().st_size > 10_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return added(self, array)  # type: ignore[arg-type]

    monkeypatch.setattr(WeightFile, "add", full)
    with pytest.raises((SottovoceError, OSError), match="No space left on device"):
        compile_to(output)
    assert names(output.parent) == []


def test_where_it_cannot_be_written_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with nothing_slow(), pytest.raises(InputError, match="create it first"):
        compile_model(request(tmp_path / "nowhere" / "x.svb"), lambda stage, done: pytest.fail(stage))


def test_weights_that_contradict_the_config_are_refused_before_they_are_lowered(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("contradiction")

    monkeypatch.setattr(speech_pipeline, "check_tensors", refuse)
    with pytest.raises(InputError, match="contradiction"):
        compile_to(output, lambda stage, done: pytest.fail(stage) if stage == "lower" else None)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, no locks")
@pytest.mark.parametrize("stage", ["pack", "measure source", "gate"])
def test_what_a_killed_compile_leaves_is_hidden_and_the_next_one_removes_it(stage: str, output: Path) -> None:
    compile_to(output)
    before = content(output)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.compiler.pipeline_case", str(output), stage]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    killed = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None and killed.stdout.readline() == "there\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    left = [name for name in names(output.parent) if name != output.name]
    assert len(left) == 1 and left[0].startswith(".sottovoce-")
    assert content(output) == before
    compile_to(output)
    assert names(output.parent) == [output.name]


def test_a_folder_of_the_users_is_not_named_in_the_manifest(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(output.parent))
    (output.parent / "secret").mkdir()
    checkpoint = random_checkpoint()
    spec, unlowered = whisper_spec(checkpoint), Lowered({}, {}, {}, {})
    for given in (str(output.parent / "secret"), "~/secret"):
        fields = manifest_fields(request(output), replace(checkpoint, spec=given), spec, unlowered)
        assert fields["source"]["spec"] == "random"
    named = manifest_fields(request(output), replace(checkpoint, spec="openai/whisper-base"), spec, unlowered)
    assert named["source"]["spec"] == "openai/whisper-base"


def test_a_hugging_face_folder_becomes_a_bundle_that_decodes(output: Path, hugging_face_folder: Path) -> None:
    checkpoint = resolve(str(hugging_face_folder))
    spec = whisper_spec(checkpoint)
    check_tensors(checkpoint, spec)
    assert spec.multilingual and not spec.alignment_heads_known
    with nothing_slow():
        work = output.parent / "work"
        work.mkdir()
        lowered = lower(request(output), checkpoint, spec, work, lambda done: None)
        files = {name: content for name, content in lowered.files.items() if name != "vad.onnx"}
        write_bundle(output, manifest_fields(request(output), checkpoint, spec, lowered), files)
    loaded = Loaded.open(output, threads=1)
    batch = loaded.engine.start([sweep(1.0)], 8)
    logits = batch.run(np.array([[spec.tokens.start, spec.tokens.start + 1]]), [0, 1])
    assert logits.shape == (1, 2, spec.vocab_size) and np.isfinite(logits).all()
    assert loaded.table.decode([72, 105]) == "Hi"
    loaded.engine.close()


@pytest.fixture
def hugging_face_folder(tmp_path: Path) -> Path:
    """A random Whisper as `save_pretrained` writes it, with a tokenizer.json of single bytes."""
    folder = tmp_path / "mine"
    random_model().save_pretrained(folder)
    free = iter(range(256, 512))
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    vocab = {chr(byte if byte in prints else next(free)): byte for byte in range(256)}
    added = [
        {"id": i, "content": token, "special": True} for i, token in enumerate(VOCABULARY) if isinstance(token, str)
    ]
    tokenizer = {"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": added}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"is_multilingual": True}))
    return folder
