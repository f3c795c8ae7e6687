"""The tokenizer that a GGUF file does not hold, put together again: its ids against those of the one it came from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers

from sottovoce.gguf import read_gguf
from sottovoce_compiler.lowerings.gguf.pretokenizer import CANDIDATES
from sottovoce_compiler.sources import SourceError
from sottovoce_compiler.sources.gguf_config import Metadata
from sottovoce_compiler.sources.gguf_tokenizer import adds_begin, tokenizer_file, vocabulary_of

from ..lowerings.gguf.text_case import TEXTS
from ..lowerings.gguf.tokenizer_case import SPECIAL, byte_level, pieces
from .gguf_case import rewrite, vocabulary_file

BYTE_LEVEL = ("gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "deepseek-v3")
CHAT = f"{SPECIAL[1]}user\nWhat is 12345 + 1?{SPECIAL[2]}\n{SPECIAL[1]}assistant\n<think>\nWell, "
PIECES = "<s> one [tool]  two</s>\n three <unk>x"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenizers"


def metadata(file: Path) -> Metadata:
    return Metadata(file.name, read_gguf(file).metadata, "llama")


def rebuilt(file: Path) -> Any:
    return Tokenizer.from_file(str(tokenizer_file(metadata(file), file.stem)))


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


def test_every_pre_tokenizer_that_is_written_is_read() -> None:
    assert {one.name for one in CANDIDATES} == set(BYTE_LEVEL)


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_a_byte_level_tokenizer_gives_the_same_ids(name: str, tmp_path: Path) -> None:
    source = byte_level(name)
    _, file = vocabulary_file(source, tmp_path)
    found = rebuilt(file)
    for text in (*TEXTS, CHAT):
        assert ids(found, text) == ids(source, text), text[:40]
        assert found.decode(ids(source, text)) == source.decode(ids(source, text))
    assert ids(found, CHAT)[0] == 1, "a special token is one token"


@pytest.mark.parametrize("prefix", ["always", "never"])
def test_sentencepieces_scores_become_the_same_ids(prefix: str, tmp_path: Path) -> None:
    source = pieces(prefix)
    _, file = vocabulary_file(source, tmp_path)
    found = rebuilt(file)
    for text in (*TEXTS, PIECES, "☃ ᚠ 🜁"):
        if text:
            assert ids(found, text) == ids(source, text), text[:40]
    assert found.decode(ids(found, "ein Weg 日本")) == "ein Weg 日本"


@pytest.mark.parametrize("name", ["gpt-2", "qwen2"])
def test_characters_are_composed_where_the_published_tokenizers_do(name: str, tmp_path: Path) -> None:
    source = byte_level(name)
    if name == "qwen2":
        source.normalizer = normalizers.NFC()
    _, file = vocabulary_file(source, tmp_path)
    text = "e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}"
    assert ids(rebuilt(file), text) == ids(source, text)


@pytest.mark.parametrize(
    ("pre", "stands_for"),
    [("llama3", "llama-bpe"), ("falcon3", "llama-bpe"), ("deepseek-r1-qwen", "qwen2"), ("phi-2", "gpt-2")],
)
def test_names_that_llama_cpp_has_for_the_same_are_known(pre: str, stands_for: str, tmp_path: Path) -> None:
    source = byte_level(stands_for)
    _, file = vocabulary_file(source, tmp_path)
    found = rebuilt(rewrite(file, {"tokenizer.ggml.pre": pre}))
    assert all(ids(found, text) == ids(source, text) for text in TEXTS[:8])


def test_text_begins_as_the_file_says_and_else_as_llama_cpp_has_it(tmp_path: Path) -> None:
    _, file = vocabulary_file(byte_level("gpt-2"), tmp_path)
    key = "tokenizer.ggml.add_bos_token"
    for said in (True, False):
        assert adds_begin(metadata(rewrite(file, {key: said}))) is said
    for pre, begins in (("gpt-2", False), ("qwen2", False), ("llama3", True), ("tekken", True)):
        assert adds_begin(metadata(rewrite(file, {key: None, "tokenizer.ggml.pre": pre}))) is begins
    assert adds_begin(metadata(rewrite(file, {key: None, "tokenizer.ggml.model": "llama"})))


def test_a_vocabulary_is_bytes_and_the_spelling_of_special_tokens(tmp_path: Path) -> None:
    _, file = vocabulary_file(byte_level("gpt-2"), tmp_path)
    found = vocabulary_of(metadata(file))
    assert found[:3] == list(SPECIAL) and found[-1] == "<think>"
    assert sorted(token for token in found if isinstance(token, bytes) and len(token) == 1) == [
        bytes([value]) for value in range(256)
    ]
    assert any(token.startswith(b" ") and len(token) > 2 for token in found if isinstance(token, bytes))


def test_a_vocabulary_of_pieces_has_their_spaces_and_bytes(tmp_path: Path) -> None:
    _, file = vocabulary_file(pieces("never"), tmp_path)
    found = vocabulary_of(metadata(file))
    assert found[:3] == ["<unk>", "<s>", "</s>"]
    assert found[3:259] == [bytes([value]) for value in range(256)]
    assert b"  " in found and "ü".encode() in found and b" the" in found


def test_an_unused_token_stands_for_nothing(tmp_path: Path) -> None:
    _, file = vocabulary_file(byte_level("gpt-2"), tmp_path)
    types = np.array(metadata(file).values["tokenizer.ggml.token_type"])
    types[100] = 5
    assert vocabulary_of(metadata(rewrite(file, {"tokenizer.ggml.token_type": types})))[100] == b""


def test_it_is_made_once_and_kept(cache: Path, tmp_path: Path) -> None:
    _, file = vocabulary_file(byte_level("gpt-2"), tmp_path)
    kept = tokenizer_file(metadata(file), "abc")
    assert [item.name for item in cache.iterdir()] == [kept.name] and kept.name.startswith("abc-")
    before = kept.stat().st_mtime_ns
    assert tokenizer_file(metadata(file), "abc") == kept and kept.stat().st_mtime_ns == before
    assert tokenizer_file(metadata(file), "abd") != kept
    assert json.loads(kept.read_text())["model"]["type"] == "BPE"


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("pieces", {"tokenizer.ggml.scores": None}, "scores is missing or not as long as the tokens"),
        ("pieces", {"tokenizer.ggml.scores": [1.0]}, "scores is missing or not as long as the tokens"),
        ("pieces", {"tokenizer.ggml.token_type": ["x"] * 3}, "token_type is missing or not as long"),
        ("bytes", {"tokenizer.ggml.merges": ["a b c"]}, "merge 0, 'a b c', is not of two tokens into a third"),
        ("bytes", {"tokenizer.ggml.merges": [1, 2]}, "merges is missing"),
        ("bytes", {"tokenizer.ggml.pre": 7}, "pre-tokenizer 'default' is not known"),
    ],
)
def test_damage_is_one_error_and_nothing_is_kept(
    kind: str, changes: dict[str, Any], said: str, cache: Path, tmp_path: Path
) -> None:
    _, file = vocabulary_file(pieces("never") if kind == "pieces" else byte_level("gpt-2"), tmp_path)
    with pytest.raises(SourceError, match=said) as caught:
        tokenizer_file(metadata(rewrite(file, changes)), "abc")
    assert "changed.gguf" in str(caught.value)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_token_that_is_not_utf_8_or_is_there_twice_is_refused(tmp_path: Path) -> None:
    _, file = vocabulary_file(byte_level("gpt-2"), tmp_path)
    data = metadata(file)
    tokens = list(data.values["tokenizer.ggml.tokens"])
    for index, spelling, said in ((900, "\udcff", "not UTF-8"), (0, SPECIAL[1], r"token 0, .* is there twice")):
        changed = [spelling if at == index else token for at, token in enumerate(tokens)]
        with pytest.raises(SourceError, match=said):
            tokenizer_file(Metadata("x", {**data.values, "tokenizer.ggml.tokens": changed}, "llama"), "abc")


def test_a_byte_that_is_none_is_refused(tmp_path: Path) -> None:
    _, file = vocabulary_file(pieces("never"), tmp_path)
    data = metadata(file)
    tokens = list(data.values["tokenizer.ggml.tokens"])
    for spelling in ("<0xZZ>", "<0x1FF>", ""):
        tokens[9] = spelling
        with pytest.raises(SourceError, match="is said to be a byte"):
            vocabulary_of(Metadata("x", {**data.values, "tokenizer.ggml.tokens": tokens}, "llama"))


@pytest.mark.weights
def test_the_pinned_models_text_is_cut_by_digit_and_comes_back() -> None:
    from sottovoce_compiler.sources import resolve

    checkpoint = resolve("smollm2-135m-instruct")
    found = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    assert [found.decode([token]) for token in ids(found, "in 2024")] == ["in", " ", "2", "0", "2", "4"]
    for text in TEXTS:
        assert found.decode(ids(found, text), skip_special_tokens=False) == text
