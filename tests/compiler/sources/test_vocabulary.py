import json
from pathlib import Path

import pytest

from sottovoce_compiler.sources import SourceError
from sottovoce_compiler.sources.vocabulary import (
    merge,
    read_ctranslate2,
    read_tokenizer,
    token_bytes,
    with_timestamps,
)

from .tiny_whisper import SPECIAL, TIMESTAMPS


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def test_every_byte_comes_back_from_its_stand_in(characters: list[str]) -> None:
    assert [token_bytes(character, Path("f")) for character in characters] == [bytes([b]) for b in range(256)]
    assert token_bytes("Ġcafé".replace("é", "Ã©"), Path("f")) == " café".encode()


def test_a_token_that_is_not_byte_level_is_refused_with_its_file() -> None:
    with pytest.raises(SourceError, match=r"tokenizer\.json: token '▁the'"):
        token_bytes("▁the", Path("tokenizer.json"))


def test_tokenizer_json_gives_bytes_for_text_and_names_for_special_tokens(tmp_path: Path) -> None:
    added = [
        {"id": 2, "content": "<|endoftext|>", "special": True},
        {"id": 3, "content": "<|0.00|>", "special": False},
        {"id": 4, "content": "zürich", "special": False},
    ]
    content = {"model": {"vocab": {"Ġa": 0, "": 1, "<|endoftext|>": 2}}, "added_tokens": added}
    write_json(tmp_path / "tokenizer.json", content)
    assert read_tokenizer(tmp_path) == [b" a", b"", "<|endoftext|>", "<|0.00|>", "zürich".encode()]


def test_vocab_json_is_read_with_its_added_tokens(tmp_path: Path) -> None:
    write_json(tmp_path / "vocab.json", {"a": 1, "Ċ": 0, "<|endoftext|>": 2})
    write_json(tmp_path / "added_tokens.json", {"<|en|>": 4})
    assert read_tokenizer(tmp_path) == [b"\n", b"a", "<|endoftext|>", "<|unused-3|>", "<|en|>"]


@pytest.mark.parametrize("name", ["vocabulary.txt", "vocabulary.json"])
def test_both_of_ctranslate2s_vocabulary_files_are_read(name: str, tmp_path: Path) -> None:
    tokens = ["Ġa", "b", "<|endoftext|>", "<|30.00|>"]
    content = "\n".join(tokens) + "\n" if name.endswith("txt") else json.dumps(tokens)
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_ctranslate2(tmp_path) == [b" a", b"b", "<|endoftext|>", "<|30.00|>"]


def test_timestamps_are_added_where_the_tokenizer_stops_before_them() -> None:
    complete = with_timestamps([b"a", *SPECIAL], 1 + len(SPECIAL) + len(TIMESTAMPS))
    assert complete == [b"a", *SPECIAL, *TIMESTAMPS]
    assert (complete[-1], complete[-2]) == ("<|30.00|>", "<|29.98|>")


def test_timestamps_stop_where_the_model_does_and_at_thirty_seconds() -> None:
    assert with_timestamps([*SPECIAL], len(SPECIAL) + 2)[-2:] == ["<|0.00|>", "<|0.02|>"]
    assert len(with_timestamps([*SPECIAL], 10_000)) == len(SPECIAL) + 1501
    assert with_timestamps([b"a", b"b", b"c"], 2) == [b"a", b"b"]
    assert with_timestamps([b"a"], 5) == [b"a"]


def test_the_tokenizer_names_special_tokens_and_the_vocabulary_supplies_the_rest() -> None:
    tokenizer: list[bytes | str] = [b"a", "<|nospeech|>"]
    vocabulary: list[bytes | str] = [b"a", "<|nocaptions|>", "<|0.00|>"]
    assert merge(tokenizer, vocabulary, Path("m")) == [b"a", "<|nospeech|>", "<|0.00|>"]
    assert merge(None, vocabulary, Path("m")) == vocabulary
    assert merge(tokenizer, None, Path("m")) == tokenizer


def test_text_tokens_of_two_different_models_are_refused() -> None:
    with pytest.raises(SourceError, match=r"token 1 is b'b' in tokenizer\.json, b'x'"):
        merge([b"a", b"b"], [b"a", b"x"], Path("m"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"vocab": {"a": 10**9}}}, "id 1000000000"),
        ({"model": {"vocab": {"a": -1}}}, "id -1"),
        ({"model": {"vocab": {"a": "0"}}}, "id '0'"),
        ({"model": {"vocab": [["a", 0.1]]}}, "only byte-level BPE"),
        ({"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}, "lacks id or content"),
        ({"model": {"vocab": {}}, "added_tokens": ["x"]}, "lacks id or content"),
        ([], "expected an object"),
    ],
)
def test_a_tokenizer_json_that_makes_no_sense_is_refused(content: object, message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer.json", content)
    with pytest.raises(SourceError, match=message):
        read_tokenizer(tmp_path)
