"""A compile predicts memory before its first slow stage, refuses what cannot fit, and says what it found."""

from dataclasses import replace
from pathlib import Path

import pytest

from sottovoce.bundle import open_bundle
from sottovoce.cli import main
from sottovoce_compiler.commands.compile import _memory as said_of_memory
from sottovoce_compiler.memory.fit import DoesNotFitError, require_fit
from sottovoce_compiler.memory.neighbour import read_neighbour
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.request import Request

from ..chat_compile_case import chat_folder, needs_llama_cpp, short_text
from ..chat_compile_case import request as chat_request
from ..pipeline_case import nothing_slow, request


def small(request: Request, usable_mb: int) -> Request:
    return replace(request, target=replace(request.target, usable_mb=usable_mb))


def only_resolves(stage: str, done: float) -> None:
    assert stage == "resolve", f"{stage} began although the bundle cannot fit"


def test_a_speech_bundle_says_what_it_will_take_and_inspect_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nothing_slow():
        compiled = compile_model(request(tmp_path / "x.svb"))
    memory = compiled.report["memory"]
    assert 0 < memory["peak_mb"] < memory["with_imports_mb"] < memory["usable_mb"]
    assert open_bundle(tmp_path / "x.svb").report()["memory"] == memory
    assert main(["inspect", str(tmp_path / "x.svb")]) == 0
    shown = capsys.readouterr().out
    assert "Memory" in shown and "stream, window of 20 s" in shown


def test_speech_that_cannot_fit_is_refused_before_it_is_lowered(tmp_path: Path) -> None:
    asked = small(request(tmp_path / "x.svb", "fp32"), 100)
    with nothing_slow(), pytest.raises(DoesNotFitError, match=r"random in fp32 needs .* linux-x86-64 has 105 MB"):
        compile_model(asked, only_resolves)
    assert list(tmp_path.iterdir()) == []


def test_a_language_model_that_cannot_fit_is_refused_before_it_is_lowered(tmp_path: Path) -> None:
    source = chat_folder(tmp_path / "nano")
    asked = small(chat_request(source, tmp_path / "x.svb"), 40)
    with pytest.raises(DoesNotFitError, match=r"nano in int4 needs .* No precision of this format would fit"):
        compile_model(asked, only_resolves)
    assert [path.name for path in tmp_path.iterdir()] == ["nano"]


def test_the_context_of_a_target_counts(tmp_path: Path) -> None:
    source = chat_folder(tmp_path / "nano", max_position_embeddings=1 << 20)
    asked = small(chat_request(source, tmp_path / "x.svb"), 300)
    wide = replace(asked.target, chat=replace(asked.target.chat, context=1 << 20))
    with pytest.raises(DoesNotFitError):
        compile_model(replace(asked, target=wide), only_resolves)


def test_speech_and_chat_on_one_board_are_planned_together(tmp_path: Path) -> None:
    needs_llama_cpp()
    source = chat_folder(tmp_path / "nano")
    compile_model(chat_request(source, tmp_path / "chat.svb", eval=short_text(tmp_path), precision="int8"))
    other = read_neighbour(tmp_path / "chat.svb")
    asked = replace(request(tmp_path / "x.svb"), beside=tmp_path / "chat.svb")
    with nothing_slow():
        memory = compile_model(asked).report["memory"]
        assert (
            memory["with_imports_mb"] < memory["beside"]["together_mb"] < memory["with_imports_mb"] + other.most / 1e6
        )
        tight = round((memory["beside"]["together_mb"] * 1e6 - 5e6) / (1 << 20))
        with pytest.raises(DoesNotFitError, match=r"beside chat.svb needs"):
            compile_model(small(asked, tight), only_resolves)
        compile_model(small(replace(asked, beside=None), tight))


def test_the_command_refuses_with_exit_1_and_counts_the_memory_that_it_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = chat_folder(tmp_path / "nano")
    words = ["compile", str(source), "--target", "raspberry-pi-zero-2w", "-o", str(tmp_path / "x.svb")]
    assert main([*words, "--memory-mb", "270"]) == 1
    said = capsys.readouterr().err
    assert "raspberry-pi-zero-2w has 51 MB for programs" in said and "Traceback" not in said
    assert main([*words, "--memory-mb", "200"]) == 2
    assert "on raspberry-pi-zero-2w the system takes 221 MB" in capsys.readouterr().err
    assert main([*words, "--beside", str(tmp_path / "none.svb")]) == 2
    assert "none.svb" in capsys.readouterr().err


def test_the_command_ends_with_what_the_bundle_will_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_slow():
        assert main(["compile", "random", "--target", "linux-x86-64", "-o", str(tmp_path / "x.svb")]) == 0
    assert "MB; in memory at most " in (out := capsys.readouterr().out)
    assert out.rstrip().endswith("of the 3221 MB that its target has for programs")


def test_the_command_and_the_report_say_so_where_memory_is_not_predicted() -> None:
    memory = require_fit("m", request(Path("x.svb")).target, "int8", lambda precision: None, ["int8"], None)
    assert said_of_memory(memory) == "; how much memory it takes is not predicted"
    assert said_of_memory({}) == "", "a report of before that"
