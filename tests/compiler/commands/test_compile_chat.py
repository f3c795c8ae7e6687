"""`compile` of language models as a user meets it: options, streams and exit codes."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from sottovoce.bundle import open_bundle
from sottovoce.cli import main
from sottovoce.golden import verify
from sottovoce_compiler.commands import compile as command
from sottovoce_compiler.families import language_model
from sottovoce_compiler.lowerings.gguf.lowering import lower_gguf
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources import resolve
from sottovoce_targets import CHAT_GATE_LIMITS

from ..chat_compile_case import chat_folder, needs_llama_cpp, short_text

LOOSE = ("--max-kl", "1", "--max-perplexity-increase", "5", "--min-top1", "0")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_llama_cpp()
    folder = tmp_path_factory.mktemp("chat")
    short_text(folder)
    return chat_folder(folder / "nano")


def compiled(source: Path, output: Path, *more: str) -> int:
    words = ["compile", str(source), "--target", "linux-x86-64", "-o", str(output)]
    return main([*words, "--eval", str(source.parent / "text.txt"), *more])


def test_the_table_is_on_stdout_and_the_stages_on_stderr(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(source, tmp_path / "x.svb", *LOOSE) == 0
    out, err = capsys.readouterr()
    assert "KL from the source, mean" in out and "x.svb: " in out and " MB" in out
    assert [line for line in err.splitlines() if line.startswith("sottovoce: ")] == [
        f"sottovoce: {stage}" for stage in ("resolve", "lower", "pack", "measure artifact", "gate", "seal")
    ]


def test_json_is_one_object_with_the_keys_of_the_contract(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(source, tmp_path / "x.svb", *LOOSE, "--json", "--precision", "q5_k_m") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == (tmp_path / "x.svb").stat().st_size
    assert found["report"]["weights"]["mix"] == "Q5_K_M"
    assert found["report"]["gate"]["limits"] == {"max_kl": 1.0, "max_perplexity_increase": 5.0, "min_top1": 0.0}


def test_a_gate_that_does_not_hold_is_exit_1_with_the_table_on_stderr(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(source, tmp_path / "x.svb", *LOOSE, "--max-kl", "0.000001", "--json") == 1
    out, err = capsys.readouterr()
    assert out == "" and "KL from the source, mean" in err
    assert err.splitlines()[-1].startswith("sottovoce: error: the gate does not hold: mean KL divergence is")
    assert list(tmp_path.iterdir()) == []


def asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *more: str) -> Request:
    seen: list[Request] = []

    def compile_model(request: Request, progress: Any) -> Any:
        seen.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "compile_model", compile_model)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(KeyboardInterrupt):
        command.run(parser.parse_args(["m", "--target", "linux-x86-64", "-o", str(tmp_path / "x.svb"), *more]))
    return seen[0]


def test_the_options_reach_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.txt").write_text("calibrate on this")
    plain = asked_for(monkeypatch, tmp_path)
    assert (plain.precision, plain.format, plain.calibration, plain.eval, dict(plain.limits)) == (*[None] * 4, {})
    given = ("--format", "onnx", "--precision", "int8", "--calibration", str(tmp_path / "c.txt"), "--min-top1", "0.7")
    request = asked_for(monkeypatch, tmp_path, *given)
    assert (request.format, request.precision, dict(request.limits)) == ("onnx", "int8", {"min_top1": 0.7})
    assert request.calibration is not None and request.calibration.passages == ("calibrate on this",)
    assert asked_for(monkeypatch, tmp_path, "--calibration", "none").calibrate is False


def test_the_help_names_every_limit_and_precision(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "--help"]) == 0
    out = capsys.readouterr().out
    for limit in CHAT_GATE_LIMITS:
        assert "--" + limit.replace("_", "-") in out
    for word in ("q5_k_m", "iq4_nl", "--calibration", "--format", "smollm2-135m-instruct"):
        assert word in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--max-wer-increase", "0.1"), "'max_wer_increase' is not for language models; those are max_kl"),
        (("--max-kl", "nan"), "gate limit max_kl is nan"),
        (("--format", "onnx", "--precision", "q4_0"), "'q4_0' is not one of the format onnx"),
        (("--calibration", "none.txt"), "cannot read none.txt"),
        (("--eval", "none.txt"), "cannot read none.txt"),
        (("--timings",), "timings of a language model are recorded with --compare-formats"),
    ],
)
def test_what_makes_no_sense_is_exit_2_and_says_why(
    more: tuple[str, ...], said: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(source, tmp_path / "x.svb", *more) == 2
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err and captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [("--precision", "q3_k"), ("--format", "safetensors")])
def test_a_word_that_is_none_of_the_choices_is_wrong_usage(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "m", "--target", "linux-x86-64", "-o", str(tmp_path / "x.svb"), *option]) == 2
    assert option[1] in capsys.readouterr().err


@pytest.fixture(scope="module")
def real_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """smollm2-135m-instruct in the target's precision."""
    needs_llama_cpp()
    path = tmp_path_factory.mktemp("real") / "smollm2.svb"
    assert main(["compile", "smollm2-135m-instruct", "--target", "linux-x86-64", "-o", str(path)]) == 0
    return path


@pytest.mark.weights
def test_the_real_smollm2_in_four_bits_verifies_and_says_what_it_lost(real_bundle: Path) -> None:
    assert [item.name for item in real_bundle.parent.iterdir()] == [real_bundle.name]
    result = verify(real_bundle)
    assert result.ok, result.failures
    report = open_bundle(real_bundle).report()
    quality = report["quality"]
    assert 0 < quality["kl"] < 0.1 and quality["top1"] > 0.8
    assert quality["perplexity"] < 1.1 * quality["source_perplexity"]
    assert quality["tokenizer"] == {"asked": 12, "equal": 12} and quality["template"] == {"asked": 14, "equal": 14}
    assert quality["json"]["valid"] == quality["json"]["asked"] and quality["tool_calls_required"]["rate"] == 1
    assert report["weights"]["fell_back"]["share"] > 0.5, "its rows are no multiple of 256"
    assert real_bundle.stat().st_size < 110e6


@pytest.mark.weights
def test_the_real_smollm2_in_float32_is_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_llama_cpp()
    checkpoint = resolve("smollm2-135m-instruct")
    lower_gguf(language_model(checkpoint), checkpoint, "fp32", 4096, tmp_path)
    words = ["evaluate", str(tmp_path / "model.gguf"), "--against", "smollm2-135m-instruct"]
    assert main([*words, "--data", str(short_text(tmp_path)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kl"] < 1e-4 and found["top1"] > 0.98  # the cache holds half precision
    assert found["perplexity"] == pytest.approx(found["source_perplexity"], rel=1e-3)
