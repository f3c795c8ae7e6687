"""A tiny random chat model through the whole compiler, measured by the engines that will run it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.random_whisper import random_checkpoint

from sottovoce.bundle import open_bundle
from sottovoce.chat.chat import Chat
from sottovoce.errors import InputError
from sottovoce.gguf import read_gguf
from sottovoce.golden import verify
from sottovoce_compiler.chat_pipeline import chat_format
from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.report import chat_measure
from sottovoce_compiler.report.gate import GateError
from sottovoce_compiler.report.texts import TextSet
from sottovoce_compiler.request import STAGES, Compiled
from sottovoce_targets import load_target

from .chat_compile_case import TEXT, chat_folder, compile_chat_to, needs_llama_cpp, request, short_text

STAGES_OF_CHAT = tuple(
    stage for stage in STAGES if stage not in ("measure source", "measure stream", "compare formats")
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_llama_cpp()
    return chat_folder(tmp_path_factory.mktemp("chat") / "nano")


@pytest.fixture(scope="module")
def text(source: Path) -> Path:
    return short_text(source.parent)


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


def test_the_stages_come_in_their_order_and_a_bundle_that_verifies_stands_alone(
    source: Path, text: Path, output: Path
) -> None:
    seen: list[tuple[str, float]] = []
    compiled = compile_chat_to(source, output, lambda *step: seen.append(step), eval=text)
    assert tuple(dict.fromkeys(stage for stage, _ in seen)) == STAGES_OF_CHAT
    for stage in ("lower", "measure artifact"):
        told = [done for name, done in seen if name == stage]
        assert told == sorted(told) and told[0] == 0 and told[-1] == pytest.approx(1)
    assert compiled.bundle == output and names(output.parent) == [output.name]
    assert compiled.bytes == sum(len(data) for data in content(output).values())
    bundle = open_bundle(output)
    assert bundle.check_all() == [] and bundle.report() == compiled.report
    result = verify(output)
    assert result.ok, result.failures
    assert set(bundle.manifest.files) == {
        *("model.gguf", "chat_template.jinja", "report.json", "golden/template.json"),
        *(f"golden/case-{number}.json" for number in range(4)),
    }


def test_the_manifest_says_what_the_model_is_and_what_runs_it(source: Path, text: Path, tmp_path: Path) -> None:
    compile_chat_to(source, tmp_path / "x.svb", eval=text)
    manifest = open_bundle(tmp_path / "x.svb").manifest
    assert (manifest.task, manifest.family, manifest.name, manifest.precision) == ("chat", "llama", "nano", "int4")
    assert manifest.engine.name == "llama.cpp"
    assert manifest.model == {"context": 4096, "layers": 2, "kv_heads": 2, "head_width": 64, "vocab_size": 288}
    assert manifest.generation == {
        **{"bos": 1, "adds_bos": False, "ends": [2], "composes": False},
        "special_tokens": {"bos_token": "<s>", "eos_token": "</s>"},
        "sampling": {"temperature": 0.7, "top_k": 0},
    }
    assert manifest.raw["source"]["spec"] == "nano", "a folder's path is nobody's business"
    assert set(manifest.raw["source"]["sha256"]) >= {"model.safetensors", "tokenizer.json", "config.json"}
    assert manifest.raw["target"]["name"] == "linux-x86-64"


def test_the_report_says_what_was_measured_on_what(source: Path, text: Path, tmp_path: Path) -> None:
    report = compile_chat_to(source, tmp_path / "x.svb", eval=text).report
    assert report["data"] == {"name": "text.txt", "sha256": TextSet("", (TEXT,)).sha256, "passages": 1}
    quality = report["quality"]
    assert quality["tokens"] > 200 and 0 < quality["kl"] < 1
    assert quality["tokenizer"] == {"asked": 7, "equal": 7} and quality["template"] == {"asked": 14, "equal": 14}
    assert {"json", "tool_calls", "tool_calls_required"} < set(quality)
    assert report["gate"]["passed"] and report["gate"]["limits"]["max_kl"] == 1.0
    assert report["weights"]["mix"] == "Q4_K_M" and 4 < report["weights"]["bits_per_weight"] < 6
    assert report["weights"]["fell_back"] == {"share": 0.0, "tensors": []}
    assert report["measured_with"].startswith("llama.cpp ")
    assert {"torch", "transformers", "tokenizers", "numpy", "gguf"} == set(report["versions"])
    assert report["notes"] == [] and report["calibration"]["name"] == "random tokens"


def test_two_compiles_give_the_same_bytes_and_no_path_or_temporary_name_is_in_them(
    source: Path, text: Path, output: Path
) -> None:
    compile_chat_to(source, output, eval=text)
    first = content(output)
    compile_chat_to(source, output, eval=text)
    assert content(output) == first
    for name, data in content(output).items():
        assert str(output.parent).encode() not in data and str(source.parent).encode() not in data, name
        assert b".sottovoce-" not in data, name


@pytest.mark.parametrize(
    ("precision", "kind", "most_kl"),
    [
        ("fp32", "F32", 1e-4),
        ("fp16", "F16", 1e-3),
        ("int8", "Q8_0", 2e-2),
        ("q5_k_m", "Q5_K", 0.2),
        ("int4", "Q4_K", 0.5),
        ("q4_0", "Q4_0", 0.5),
        ("iq4_nl", "IQ4_NL", 0.5),
    ],
)
def test_each_precision_is_the_type_of_most_weights_and_loses_what_its_bits_allow(
    precision: str, kind: str, most_kl: float, source: Path, text: Path, tmp_path: Path
) -> None:
    compiled = compile_chat_to(source, tmp_path / "x", eval=text, precision=precision)
    shares = compiled.report["weights"]["share_by_type"]
    assert max(shares, key=shares.__getitem__) == kind
    assert read_gguf(tmp_path / "x" / "model.gguf").tensors["blk.0.ffn_up.weight"].kind == kind
    assert compiled.report["quality"]["kl"] < most_kl
    assert open_bundle(tmp_path / "x").manifest.precision == precision


def test_rows_that_k_quants_do_not_divide_are_said_to_have_fallen_back(text: Path, tmp_path: Path) -> None:
    odd = chat_folder(tmp_path / "odd", hidden_size=192, intermediate_size=320)
    fell = compile_chat_to(odd, tmp_path / "x.svb", eval=text).report["weights"]["fell_back"]
    assert fell["share"] > 0.98
    assert {"wanted": "Q4_K", "stored": "Q5_0"}.items() <= fell["tensors"][0].items()
    assert "rows of 192 values are not a multiple of 256" in {row["because"] for row in fell["tensors"]}


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_the_same_model_becomes_a_bundle_for_onnx_runtime(
    precision: str, source: Path, text: Path, tmp_path: Path
) -> None:
    compiled = compile_chat_to(source, tmp_path / "x.svb", eval=text, precision=precision, format="onnx")
    bundle = open_bundle(tmp_path / "x.svb")
    assert bundle.manifest.engine.name == "onnxruntime" and {"model.onnx", "tokenizer.json"} < set(
        bundle.manifest.files
    )
    assert compiled.report["quality"]["kl"] < {"fp32": 1e-8, "int8": 2e-2, "int4": 0.5}[precision]
    assert compiled.report["measured_with"].startswith("onnxruntime ")
    assert verify(tmp_path / "x.svb").ok


@pytest.mark.parametrize(("form", "precision", "other"), [("gguf", "int8", "int8"), ("onnx", "int4", "int4")])
def test_both_formats_are_measured_on_the_same_text_when_asked_and_the_report_says_which_is_better(
    form: str, precision: str, other: str, source: Path, text: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"eval": text, "format": form, "precision": precision}
    plain = compile_chat_to(source, tmp_path / "plain.svb", **given)
    assert "formats" not in plain.report
    seen: list[tuple[str, float]] = []
    compiled = compile_chat_to(
        source, tmp_path / "x.svb", lambda *step: seen.append(step), compare_formats=True, **given
    )
    told = [done for stage, done in seen if stage == "compare formats"]
    assert told == sorted(told) and told[0] == 0 and told[-1] == pytest.approx(1)
    formats = compiled.report["formats"]
    mine, theirs = formats[form], formats["onnx" if form == "gguf" else "gguf"]
    assert formats["chosen"] == form and theirs["precision"] == other
    quality = {name: compiled.report["quality"][name] for name in mine["quality"]}
    assert mine["quality"] == quality, "what was asked for is not measured twice"
    alone = compile_chat_to(source, tmp_path / "other.svb", **{**given, "format": "onnx" if form == "gguf" else "gguf"})
    assert theirs["quality"] == {name: alone.report["quality"][name] for name in theirs["quality"]}
    assert theirs["engine"] == alone.report["measured_with"] and theirs["engine"] != mine["engine"]
    assert abs(theirs["bytes"] - alone.bytes) < 200_000, "the draft has no report"
    assert set(formats["better"]) == {"quality", "size"}, "speed only where it was asked for"
    assert open_bundle(tmp_path / "x.svb").report() == compiled.report
    assert set(open_bundle(tmp_path / "x.svb").manifest.files) == set(
        open_bundle(tmp_path / "plain.svb").manifest.files
    )
    assert names(tmp_path) == ["other.svb", "plain.svb", "x.svb"]


def test_comparing_formats_twice_gives_the_same_bytes(source: Path, text: Path, tmp_path: Path) -> None:
    for name in ("one.svb", "two.svb"):
        compile_chat_to(source, tmp_path / name, eval=text, compare_formats=True)
    assert (tmp_path / "one.svb").read_bytes() == (tmp_path / "two.svb").read_bytes()


def test_timings_say_which_format_is_faster_here(source: Path, text: Path, tmp_path: Path) -> None:
    formats = compile_chat_to(source, tmp_path / "x.svb", eval=text, compare_formats=True, timings=True).report[
        "formats"
    ]
    rates = {form: formats[form]["speed"]["tokens_per_s"] for form in ("gguf", "onnx")}
    assert formats["better"]["speed"] == max(rates, key=rates.__getitem__) and min(rates.values()) > 0
    assert {"quality", "size", "speed", "prompt_speed"} == set(formats["better"]) and formats["machine"]["cpu"]


def test_a_format_that_cannot_have_the_model_is_said_to_be_left_out_and_why(
    source: Path, text: Path, tmp_path: Path
) -> None:
    narrow = chat_folder(tmp_path / "narrow", head_dim=40)
    report = compile_chat_to(narrow, tmp_path / "x.svb", eval=text, precision="fp32", compare_formats=True).report
    assert "40 values of each head turn; onnxruntime turns multiples of 16" in report["formats"]["left_out"]
    assert "better" not in report["formats"] and report["formats"]["gguf"]["quality"]["kl"] < 1e-3


def test_a_bundle_answers_as_its_source_does(source: Path, text: Path, tmp_path: Path) -> None:
    from sottovoce_compiler.report.causal_source import CausalSource
    from sottovoce_compiler.sources import resolve

    compile_chat_to(source, tmp_path / "x.svb", eval=text, precision="fp32")
    truth = CausalSource(resolve(str(source)))
    with Chat(tmp_path / "x.svb") as chat:
        prompt = chat.render([{"role": "user", "content": "Hi"}])
        assert prompt == "<s>user\nHi</s>\n<s>assistant\n"
        tokens = chat._ready.engine.vocabulary.encode(prompt, special=True)
        np.testing.assert_allclose(chat._ready.engine.evaluate(tokens)[0], truth.logits(tokens)[-1], atol=0.05)


def test_a_gate_that_does_not_hold_leaves_nothing(source: Path, text: Path, output: Path) -> None:
    with pytest.raises(GateError, match=r"the gate does not hold: mean KL divergence is .*, 1e-05 allowed") as caught:
        compile_chat_to(source, output, eval=text, limits={"max_kl": 1e-5})
    assert names(output.parent) == []
    assert caught.value.result.tables()[0].title == "nano on text.txt"


def test_a_gate_that_does_not_hold_leaves_the_bundle_that_was_there(source: Path, text: Path, output: Path) -> None:
    compile_chat_to(source, output, eval=text)
    before = content(output)
    with pytest.raises(GateError):
        compile_chat_to(source, output, eval=text, limits={"max_perplexity_increase": -0.9})
    assert content(output) == before and names(output.parent) == [output.name]


def test_a_text_too_short_to_measure_does_not_pass(source: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Hello")
    with pytest.raises(GateError, match="nothing was measured: the text is too short"):
        compile_chat_to(source, tmp_path / "x.svb", eval=tmp_path / "short.txt")
    assert names(tmp_path) == ["short.txt"]


def test_a_template_that_renders_otherwise_does_not_pass(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_measure, "source_rendering", lambda checkpoint: lambda conversation: "something else")
    with pytest.raises(GateError, match="chat template differs from the source's on 14 of 14 texts; first: one quest"):
        compile_chat_to(source, tmp_path / "x.svb", eval=text)
    assert names(tmp_path) == []


@pytest.mark.parametrize("stage", ["lower", "pack", "measure artifact", "gate", "seal"])
def test_whatever_breaks_a_stage_leaves_nothing(stage: str, source: Path, text: Path, output: Path) -> None:
    def progress(now: str, done: float) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_chat_to(source, output, progress, eval=text)
    assert names(output.parent) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, no locks")
@pytest.mark.parametrize("stage", ["gate"])
def test_what_a_killed_compile_leaves_is_hidden_and_the_next_one_removes_it(
    stage: str, source: Path, text: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "tests.compiler.chat_compile_case",
        str(source),
        str(folder / "x.svb"),
        stage,
        str(text),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    killed = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None and killed.stdout.readline() == "there\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert all(name.startswith(".sottovoce-") for name in names(folder)) and len(names(folder)) == 1
    compile_chat_to(source, folder / "x.svb", eval=text)
    assert names(folder) == ["x.svb"]


def test_calibration_text_changes_the_bytes_and_is_named_in_the_report(
    source: Path, text: Path, tmp_path: Path
) -> None:
    mine = TextSet("mine.txt", ("for i in range(10):\n    print(i)\n" * 5,))
    found: dict[str, Compiled] = {}
    for name, given in (("random", {}), ("none", {"calibrate": False}), ("mine", {"calibration": mine})):
        found[name] = compile_chat_to(source, tmp_path / name, eval=text, **given)  # type: ignore[arg-type]
    assert found["none"].report["calibration"] is None
    assert not found["none"].report["weights"]["importance_matrix"]
    assert found["mine"].report["calibration"] == {"name": "mine.txt", "sha256": mine.sha256, "tokens": 165}
    assert found["mine"].report["weights"]["importance_matrix"]
    assert len({(tmp_path / name / "model.gguf").read_bytes() for name in found}) == 3


def test_a_gguf_file_as_a_source_becomes_the_bundle_of_its_original(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    compile_chat_to(source, tmp_path / "first", eval=text, precision="fp32")
    plain = tmp_path / "nano.gguf"
    plain.write_bytes((tmp_path / "first" / "model.gguf").read_bytes())
    compiled = compile_chat_to(plain, tmp_path / "second", eval=text, precision="fp32")
    assert compiled.report["quality"]["template"] == {"asked": 14, "equal": 14}
    first, second = (read_gguf(tmp_path / name / "model.gguf") for name in ("first", "second"))
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(first.tensor_bytes(tensor), second.tensor_bytes(second.tensors[name]), name)
    one, other = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("first", "second"))
    assert one["quality"]["perplexity"] == other["quality"]["perplexity"]
    assert open_bundle(tmp_path / "second").manifest.raw["source"]["spec"] == "nano"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"format": "onnx", "precision": "q5_k_m"}, "'q5_k_m' is not one of the format onnx, which has fp32, fp16"),
        ({"precision": "int3"}, "'int3' is not one of the format gguf, which has fp32.*iq4_nl"),
        ({"format": "tflite"}, "format 'tflite' is not one of gguf, onnx, coreml"),
        ({"limits": {"max_wer_increase": 0.1}}, "'max_wer_increase' is not for language models; those are max_kl"),
        ({"timings": True}, "timings of a language model are recorded with --compare-formats; `sottovoce bench`"),
    ],
)
def test_what_is_not_for_language_models_is_refused_before_anything_is_lowered(
    given: dict[str, Any], said: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        compile_model(
            request(source, tmp_path / "x.svb", **given),
            lambda stage, _: pytest.fail(stage) if stage != "resolve" else None,
        )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"precision": "q4_k_m"}, "precision 'q4_k_m' is for language models; speech has int8, int4, fp16, fp32"),
        ({"limits": {"max_kl": 0.1}}, "gate limit 'max_kl' is not for speech; those are max_wer_increase"),
        ({"format": "gguf"}, "format 'gguf' is for language models"),
        ({"calibration": TextSet("a", ("b",))}, "calibration text is for language models"),
        ({"compare_formats": True}, "formats are compared for language models"),
    ],
)
def test_what_is_for_language_models_is_refused_for_speech(
    given: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce_compiler.pipeline.resolve", lambda spec: random_checkpoint())
    asked = request(Path("random"), tmp_path / "x.svb", limits=given.pop("limits", {}), **given)
    with pytest.raises(InputError, match=said):
        compile_model(asked, lambda stage, _: pytest.fail(stage) if stage != "resolve" else None)
    assert names(tmp_path) == []


def test_the_format_and_precision_are_the_targets_unless_asked_otherwise(tmp_path: Path) -> None:
    plain = request(Path("x"), tmp_path / "x.svb")
    assert chat_format(plain) == ("gguf", "int4")
    assert chat_format(replace(plain, precision="q6_k")) == ("gguf", "q6_k")
    assert chat_format(replace(plain, target=load_target("android-arm64"), precision="fp16"))[1] == "fp16"


def test_an_architecture_that_is_not_known_is_named(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path / "nano")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    with pytest.raises(UnsupportedModelError, match=r"nano: model_type 'mamba' is not supported; supported: gemma3"):
        compile_chat_to(folder, tmp_path / "x.svb")
    assert names(tmp_path) == ["nano"]


def test_the_context_is_the_targets_or_what_the_model_was_trained_for(source: Path, text: Path, tmp_path: Path) -> None:
    small = chat_folder(tmp_path / "small", max_position_embeddings=1024)
    target = load_target("linux-x86-64")
    tight = replace(target, chat=replace(target.chat, context=2048))
    for folder, expected in ((small, 1024), (source, 2048)):
        compile_chat_to(folder, tmp_path / "x.svb", eval=text, target=tight, precision="int8")
        assert open_bundle(tmp_path / "x.svb").manifest.model["context"] == expected


def test_a_lowering_gets_the_targets_processor(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sottovoce_compiler.lowerings.onnx import causal_lowering

    seen: dict[str, Any] = {}

    def lower_onnx(*given: Any, **processor: Any) -> Any:
        seen.update(processor)
        raise InputError("stop here")

    monkeypatch.setattr(causal_lowering, "lower_onnx", lower_onnx)
    with pytest.raises(InputError, match="stop here"):
        compile_chat_to(
            source, tmp_path / "x.svb", format="onnx", target=load_target("raspberry-pi-5"), precision="int8"
        )
    assert seen == {"arch": "aarch64", "instructions": load_target("raspberry-pi-5").instructions}
