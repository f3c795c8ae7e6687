"""Questions answered word for word by a source in torch and by its bundle in the engine."""

import json
from pathlib import Path

import pytest

from sottovoce.cli import main
from sottovoce_compiler.families import language_model
from sottovoce_compiler.lowerings.gguf.writer import write_gguf
from sottovoce_compiler.report.answers import measure_answers
from sottovoce_compiler.report.questions import MAX_ANSWER, Questions, unescaped
from sottovoce_compiler.sources import resolve

from ..chat_compile_case import chat_folder, needs_llama_cpp, short_text

MARKER = "\nA: "
ASKED = ["What is it", "And then", "Who was there", "Why", "How many of them came back"]


def lines(file: Path, answers: list[str]) -> Path:
    file.write_text(
        "".join(json.dumps({"text": f"Q: {q}{MARKER}{a}"}) + "\n" for q, a in zip(ASKED, answers, strict=True))
    )
    return file


def own_answers(source: Path, most: int) -> list[str]:
    """What the model itself answers, in `most` tokens."""
    from sottovoce_compiler.finetune.data.coder import Coder
    from sottovoce_compiler.finetune.model.decoder import Decoder
    from sottovoce_compiler.finetune.tasks.chat import generated

    checkpoint = resolve(str(source))
    coder = Coder(checkpoint, language_model(checkpoint).spec)
    prompts = [coder.encode_text([f"Q: {question}{MARKER}"])[0] for question in ASKED]
    return [
        coder.decode(one) for one in generated(Decoder(language_model(checkpoint)).eval(), prompts, most, coder.ends)
    ]


def test_source_and_bundle_are_counted_by_the_same_questions(tmp_path: Path) -> None:
    needs_llama_cpp()
    source = chat_folder(tmp_path / "source")
    checkpoint = resolve(str(source))
    write_gguf(language_model(checkpoint), checkpoint, tmp_path / "model.gguf")
    own = own_answers(source, 4)
    file = lines(tmp_path / "questions.jsonl", [own[0], own[1] + "x", own[2], "no", own[4]])
    other = resolve(str(chat_folder(tmp_path / "other", num_hidden_layers=1)))
    found = measure_answers(Questions(file, MARKER, 4), checkpoint, tmp_path / "model.gguf", other)
    assert (found.asked, found.source, found.bundle) == (5, 0.6, 0.6)
    assert found.base is not None and found.base < 0.6
    assert found.to_json()["exact_match"] == {"base": found.base, "source": 0.6, "bundle": 0.6}
    assert found.table().rows[0][-2:] == ("60.0%", "60.0%")


def test_the_report_of_a_compile_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_llama_cpp()
    source = chat_folder(tmp_path / "source")
    file = lines(tmp_path / "questions.jsonl", ["a", "b", "c", "d", "e"])
    command = ["compile", str(source), "--target", "linux-x86-64", "--precision", "fp32", "--json"]
    command += ["--eval", str(short_text(tmp_path)), "-o", str(tmp_path / "x.svb"), "--answers", str(file)]
    assert main([*command, "--answer-marker", "\\nA: "]) == 0
    answers = json.loads(capsys.readouterr().out)["report"]["answers"]
    assert (answers["data"], answers["asked"]) == ("questions.jsonl", 5)
    assert answers["exact_match"] == {"source": 0, "bundle": 0}, "a random model answers nothing so short"


def test_the_marker_and_the_length_are_those_the_adapter_was_trained_with(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"settings": {"answer_marker": MARKER, "max_new_tokens": 40}}))
    assert Questions.of(Path("q"), None, tmp_path) == Questions(Path("q"), MARKER, 40)
    assert Questions.of(Path("q"), "=>", tmp_path) == Questions(Path("q"), "=>", 40)
    assert Questions.of(Path("q"), None, tmp_path / "peft") == Questions(Path("q"), None, MAX_ANSWER)
    assert unescaped("\\nA:\\t") == "\nA:\t"


def test_a_marker_without_questions_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "x", "--target", "linux-x86-64", "-o", "x.svb", "--answer-marker", "A"]) == 2
    assert "--answer-marker goes with --answers" in capsys.readouterr().err
