"""`evaluate` of language models as a user meets it, on tiny random ones."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sottovoce.bundle import open_bundle
from sottovoce.cli import main
from sottovoce_compiler.commands.evaluate_text import is_artifact
from sottovoce_compiler.sources import resolve

from ..chat_compile_case import TEXT, chat_folder, compile_chat_to, needs_llama_cpp, short_text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source `nano`, its bundles `x.svb` and `onnx.svb`, its GGUF file and a text."""
    needs_llama_cpp()
    home = tmp_path_factory.mktemp("home")
    source, text = chat_folder(home / "nano"), short_text(home)
    compile_chat_to(source, home / "x.svb", eval=text)
    compile_chat_to(source, home / "onnx.svb", eval=text, format="onnx", precision="int8")
    (home / "nano.gguf").write_bytes(open_bundle(home / "x.svb").read("model.gguf"))
    return home


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of the source's name lies here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))


def evaluated(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[dict[str, Any], str]:
    assert main(["evaluate", *map(str, words), "--json"]) == code
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def reported(bundle: Path) -> dict[str, Any]:
    return dict(open_bundle(bundle).report()["quality"])


@pytest.mark.parametrize("bundle", ["x.svb", "onnx.svb"])
def test_against_its_source_a_bundle_loses_what_its_report_says(
    bundle: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, err = evaluated(capsys, home / bundle, "--data", home / "text.txt", "--against", home / "nano")
    report = reported(home / bundle)
    for key in ("tokens", "perplexity", "source_perplexity", "kl", "kl_p99", "top1"):
        assert found[key] == report[key], key
    assert found["against"] == "nano" and err == ""
    assert found["dataset"]["name"] == "text.txt"


def test_the_source_that_a_bundle_names_is_compared_with_where_it_is_at_hand(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sottovoce_compiler.commands.evaluate_text as module

    asked: list[tuple[str, bool]] = []

    def at_hand(spec: str, *, offline: bool = False) -> Any:
        asked.append((spec, offline))
        return resolve(str(home / "nano"))

    monkeypatch.setattr(module, "resolve", at_hand)
    found, err = evaluated(capsys, home / "x.svb", "--data", home / "text.txt")
    assert asked == [("nano", True)], "nothing large is fetched unasked"
    assert found["kl"] == reported(home / "x.svb")["kl"] and err == ""


def test_a_source_that_is_not_at_hand_leaves_the_perplexity_and_a_word(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, err = evaluated(capsys, home / "x.svb", "--data", home / "text.txt")
    assert found["perplexity"] == reported(home / "x.svb")["perplexity"]
    assert [found[key] for key in ("kl", "top1", "against", "source_perplexity")] == [None] * 4
    assert "not compared with its source: " in err and "give one with --against" in err and "nano" in err


def test_a_model_of_the_same_name_is_not_taken_for_the_source(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_folder(tmp_path / "nano", rms_norm_eps=0.1)
    found, err = evaluated(capsys, home / "x.svb", "--data", home / "text.txt")
    assert found["kl"] is None and "nano is not what the bundle was made from" in err


def test_against_none_nothing_is_compared_and_nothing_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, err = evaluated(capsys, home / "x.svb", "--data", home / "text.txt", "--against", "none")
    assert found["kl"] is None and found["tokens"] == reported(home / "x.svb")["tokens"] and err == ""


def test_a_gguf_file_is_measured_as_it_runs_and_against_what_is_given(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, err = evaluated(capsys, home / "nano.gguf", "--data", home / "text.txt")
    report = reported(home / "x.svb")
    assert (found["perplexity"], found["kl"]) == (report["perplexity"], None)
    assert "a GGUF file does not say what it was made from; give one with --against" in err
    found, err = evaluated(capsys, home / "nano.gguf", "--data", home / "text.txt", "--against", home / "nano")
    assert found["kl"] == report["kl"] and err == ""


def test_a_source_is_measured_at_full_precision(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, err = evaluated(capsys, home / "nano", "--data", home / "text.txt")
    report = reported(home / "x.svb")
    assert (found["tokens"], found["perplexity"]) == (report["tokens"], report["source_perplexity"])
    assert found["kl"] is None and err == ""


def test_without_data_the_built_in_text_is_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = evaluated(capsys, home / "nano")
    assert found["dataset"]["name"].startswith("builtin-text-") and found["dataset"]["passages"] == 6
    assert found["tokens"] > 5000 and math.isfinite(found["perplexity"])


def test_passages_of_jsonl_are_read_apart(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": TEXT[:60]}) for _ in range(3)))
    found, _ = evaluated(capsys, home / "nano", "--data", tmp_path / "a.jsonl")
    assert found["dataset"]["passages"] == 3 and found["tokens"] % 3 == 0


def test_the_table_stands_on_stdout_with_the_source_beside(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["evaluate", str(home / "x.svb"), "--data", str(home / "text.txt"), "--against", str(home / "nano")]) == 0
    )
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("x.svb on text.txt") and out[1].split() == ["model", "nano"]
    assert [line.split("  ")[0] for line in out[2:]] == [
        "tokens scored",
        "perplexity",
        "KL from the source, mean",
        "KL from the source, 99th percentile",
        "same likeliest token",
    ]
    assert main(["evaluate", str(home / "nano"), "--data", str(home / "text.txt")]) == 0
    assert "KL" not in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--stream"], ["--stream", "--plot", "-"], ["--set", "step=1"], ["--threads", "2"]])
def test_options_of_speech_are_refused_for_a_packed_language_model(
    option: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in (home / "x.svb", home / "nano.gguf"):
        assert main(["evaluate", str(model), *option]) == 2
        captured = capsys.readouterr()
        assert f"is about speech, and {model} is a language model" in captured.err and captured.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nano", "--against", "nano"], "--against is what a packed model is compared with, and .*nano is a source"),
        (["nano", "--stream"], "--stream measures a bundle, and .*nano is a source"),
        (["x.svb", "--against", "./nowhere"], "there is no folder nowhere"),
        (["missing.gguf"], r"there is no file .*missing\.gguf"),
        (["missing.svb"], r"there is no bundle .*missing\.svb"),
        (["x.svb", "--data", "none.txt"], r"cannot read .*none\.txt"),
        (["x.svb", "--against", "none", "--data", "short.txt"], r"short\.txt is too short to measure anything on"),
        (["x.svb", "--against", "nano", "--data", "short.txt"], r"short\.txt is too short to measure anything on"),
        (["nano", "--data", "short.txt"], r"short\.txt is too short to measure anything on"),
    ],
)
def test_what_cannot_be_done_is_exit_2_and_says_why(
    words: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    (home / "short.txt").write_text("Hi")
    given = [str(home / word) if word.endswith((".svb", ".gguf", ".txt", "nano")) else word for word in words]
    assert main(["evaluate", *given]) == 2
    captured = capsys.readouterr()
    assert re.search(said, captured.err) and "Traceback" not in captured.err and captured.out == ""


def test_against_is_refused_for_speech(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "speech.svb").write_bytes(b"")
    assert main(["evaluate", str(tmp_path / "speech.svb"), "--against", "none"]) == 2
    assert "--against is for language models" in capsys.readouterr().err


def test_what_is_a_packed_language_model_is_seen_from_what_lies_there(home: Path, tmp_path: Path) -> None:
    assert is_artifact(str(home / "x.svb")) and is_artifact(str(home / "nano.gguf"))
    assert not is_artifact(str(home / "nano")) and not is_artifact("smollm2-135m-instruct")
    (tmp_path / "broken.svb").write_bytes(b"PK\3\4 broken")
    (tmp_path / "other.gguf").write_bytes(b"nothing")
    assert not is_artifact(str(tmp_path / "broken.svb")) and not is_artifact(str(tmp_path / "other.gguf"))
