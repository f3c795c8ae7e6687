"""The vocabulary over tokenizer.json, byte-level and SentencePiece-like."""

import json
import sys
from typing import Any

import pytest
from chat_bundle_case import byte_tokenizer

from sottovoce.chat.tokenizer import TokenizerVocabulary
from sottovoce.engines.chat import Vocabulary
from sottovoce.errors import BundleError, InputError, MissingExtraError

GENERATION: dict[str, Any] = {"bos": 1, "adds_bos": True, "ends": [2]}
SIZE = 300
TEXT = 'Grüße, the world!\n\t"naïve" 漢字 \U0001f600 <0x41> \N{LOWER ONE EIGHTH BLOCK}'


def made(**changes: Any) -> TokenizerVocabulary:
    return TokenizerVocabulary(byte_tokenizer(), {**GENERATION, **changes}, SIZE)


def sentencepiece() -> bytes:
    """Like Gemma's: spaces as U+2581, bytes as <0x..>, no pre-tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    pieces = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\N{LOWER ONE EIGHTH BLOCK}",
    ]
    ids = {piece: i for i, piece in enumerate([*pieces, *"abcdefghijklmnopqrstuvwxyz"])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\N{LOWER ONE EIGHTH BLOCK}")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\N{LOWER ONE EIGHTH BLOCK}", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in pieces[:4]])
    return str(tokenizer.to_str()).encode()


def test_it_is_a_vocabulary() -> None:
    vocabulary: Vocabulary = made()
    assert (vocabulary.size, vocabulary.bos, vocabulary.adds_bos, vocabulary.ends) == (SIZE, 1, True, frozenset({2}))


@pytest.mark.parametrize("text", [TEXT, "", " ", "the", "\0\x7f", "a" * 1000])
def test_the_bytes_of_the_tokens_are_the_texts(text: str) -> None:
    vocabulary = made()
    ids = vocabulary.encode(text, special=True)
    assert b"".join(vocabulary.token_bytes(token) for token in ids) == text.encode()


def test_sentencepiece_bytes_are_the_texts() -> None:
    vocabulary = TokenizerVocabulary(sentencepiece(), GENERATION, 400)
    text = "plain words\nand Ünïcode 漢"
    ids = vocabulary.encode(text, special=False)
    assert b"".join(vocabulary.token_bytes(token) for token in ids) == text.encode()
    assert vocabulary.token_bytes(4 + 0xC3) == b"\xc3" and vocabulary.token_bytes(2) == b"</s>"


def test_special_tokens_in_a_users_text_stay_text() -> None:
    vocabulary = made()
    assert vocabulary.encode("<s>th</s>", special=True) == [1, vocabulary.encode("th", special=False)[0], 2]
    as_text = vocabulary.encode("<s>th</s>", special=False)
    assert not {1, 2} & set(as_text)
    assert b"".join(vocabulary.token_bytes(token) for token in as_text) == b"<s>th</s>"
    assert vocabulary.encode("<s>", special=True) == [1], "asking without does not change asking with"


def test_control_tokens_are_told_from_text() -> None:
    vocabulary = made()
    (think,) = vocabulary.encode("<think>", special=True)
    assert [vocabulary.is_control(token) for token in (0, 1, 2, 3, think, 299)] == [True] * 3 + [False] * 3
    assert vocabulary.token_bytes(1) == b"<s>" and vocabulary.token_bytes(think) == b"<think>"


@pytest.mark.parametrize("token", [299, 300, -1, 1 << 40])
def test_a_token_that_stands_for_nothing_has_no_bytes(token: int) -> None:
    assert made().token_bytes(token) == b""


@pytest.mark.parametrize(
    ("key", "value"),
    [("bos", 300), ("bos", "1"), ("bos", True), ("adds_bos", 1), ("ends", 2), ("ends", [2, -1]), ("ends", [None])],
)
def test_tokens_that_cannot_be_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(BundleError, match=key):
        made(**{key: value})


def test_a_model_without_bos_adds_none() -> None:
    assert not made(bos=None).adds_bos


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"null"])
def test_a_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        TokenizerVocabulary(data, GENERATION, SIZE)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be encoded"):
        made().encode("\ud800", special=True)


def test_a_file_that_cuts_and_pads_does_neither_here() -> None:
    raw = json.loads(byte_tokenizer())
    raw["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    raw["padding"] = {
        **{"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0},
        **{"pad_type_id": 0, "pad_token": "<pad>"},
    }
    vocabulary = TokenizerVocabulary(json.dumps(raw).encode(), GENERATION, SIZE)
    assert len(vocabulary.encode("abcd", special=True)) == 4


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = byte_tokenizer()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"sottovoce\[chat-onnx\]"):
        TokenizerVocabulary(data, GENERATION, SIZE)
