import json
from pathlib import Path

import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.report import texts
from sottovoce_compiler.report.texts import TextSet, builtin_text, read_texts


def written(folder: Path, content: str | bytes, name: str = "text.txt") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_the_built_in_set_is_several_kinds_of_text_without_outer_space() -> None:
    found = builtin_text()
    assert found.name.startswith("builtin-text-") and len(found.passages) == 6
    assert all(passage == passage.strip() and len(passage) > 300 for passage in found.passages)
    assert found.sha256 == builtin_text().sha256


def test_a_text_file_is_one_passage_as_it_is(tmp_path: Path) -> None:
    found = read_texts(written(tmp_path, " one\n\ntwo \r\n"))
    assert found == TextSet("text.txt", (" one\n\ntwo \r\n",))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read_texts(written(tmp_path, b"\xef\xbb\xbfone")).passages == ("one",)
    assert read_texts(written(tmp_path, b'\xef\xbb\xbf{"text": "one"}', "a.jsonl")).passages == ("one",)


def test_a_line_of_jsonl_is_a_passage_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    lines = [{"text": "one\ntwo", "more": 1}, {"text": " "}, {"text": "three"}]
    content = "\r\n".join(json.dumps(line) for line in lines) + "\n\n"
    assert read_texts(written(tmp_path, content, "a.jsonl")).passages == ("one\ntwo", "three")


def test_line_ends_that_only_unicode_knows_are_part_of_a_text(tmp_path: Path) -> None:
    line = json.dumps({"text": "one\u2028two\u0085three"}, ensure_ascii=False)
    assert read_texts(written(tmp_path, line, "a.jsonl")).passages == ("one\u2028two\u0085three",)


def test_the_digest_tells_passages_from_one_text() -> None:
    assert TextSet("a", ("one", "two")).sha256 != TextSet("a", ("one two",)).sha256
    assert TextSet("a", ("one",)).sha256 == TextSet("b", ("one",)).sha256


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\t\n", "holds no text"),
        ("a.jsonl", b'{"text": ""}\n', "holds no text"),
        ("a.txt", b"caf\xe9", r"is not UTF-8 text \(byte 3\)"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "line 2: not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'\n{"words": "x"}', r'line 2: expected \{"text": "\.\.\."\}'),
        ("a.jsonl", b'["text"]', "line 1: expected"),
        ("a.jsonl", b'{"text": 7}', "line 1: expected"),
        ("a.jsonl", b'{"text": "\\ud83d"}', "line 1: half of a surrogate pair is no text"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_texts(written(tmp_path, content, name))
    assert name in str(caught.value)


def test_a_file_that_is_not_there_a_folder_and_a_huge_one_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.txt: No such file"):
        read_texts(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot read"):
        read_texts(tmp_path)
    monkeypatch.setattr(texts, "MAX_BYTES", 10)
    with pytest.raises(InputError, match="has 11 bytes; at most 10 are read"):
        read_texts(written(tmp_path, "x" * 11))
