"""Packing without measuring: the benchmark goes the compiler's own way, and notices when that way changes."""

from pathlib import Path

import pytest
from chat_plan import LLAMA_CPP, ONNXRUNTIME, read_bundle
from chat_stages.drafts import draft
from tests.compiler.chat_compile_case import chat_folder

from sottovoce.bundle import open_bundle
from sottovoce_compiler.sources import resolve


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("chat") / "nano")


@pytest.mark.parametrize(("form", "precision", "engine"), [("gguf", "q8_0", LLAMA_CPP), ("onnx", "fp32", ONNXRUNTIME)])
def test_a_source_becomes_a_whole_bundle_of_the_format_and_precision_asked_for(
    source: Path, tmp_path: Path, form: str, precision: str, engine: str
) -> None:
    bundle = draft(resolve(str(source)), form, precision, tmp_path)
    assert open_bundle(bundle).check_all() == []
    found = read_bundle(bundle)
    assert (found.engine, found.precision) == (engine, precision)
    assert found.name == f"{engine} {precision}"


def test_the_gguf_of_a_bundle_is_copied_out_once_and_whole(source: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    bundle = read_bundle(draft(resolve(str(source)), "gguf", "fp16", tmp_path / "made"))
    copy = bundle.gguf_file(tmp_path / "work")
    assert copy.read_bytes() == open_bundle(bundle.path).read("model.gguf")
    before = copy.stat().st_mtime_ns
    assert bundle.gguf_file(tmp_path / "work") == copy and copy.stat().st_mtime_ns == before
    assert [file.name for file in (tmp_path / "work").iterdir()] == [copy.name]
