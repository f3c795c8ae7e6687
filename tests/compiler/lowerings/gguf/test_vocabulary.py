import json
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFReader, TokenType

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.lowerings.gguf.pretokenizer import CANDIDATES, identify
from sottovoce_compiler.lowerings.gguf.vocabulary import TokenTable, token_table
from sottovoce_compiler.lowerings.gguf.writer import write_vocabulary
from sottovoce_compiler.sources import SourceError, resolve

from . import llama_case
from .text_case import LATIN, TEXTS
from .tokenizer_case import PUBLISHED, SPACE, SPECIAL, byte_level, checkpoint_of, pieces

KINDS = ["smollm", *PUBLISHED]
STANDS_IN = ("tekken", "gpt-4o")  # llama.cpp cuts these without looking at marks and at capitals of other alphabets
CHAT = "<|im_start|>user\nWhat's 2+2?\n<|im_end|>\n<|im_start|>assistant\n<think>\n"


def table_of(tokenizer: object, folder: Path) -> TokenTable:
    checkpoint = checkpoint_of(tokenizer, folder)
    return token_table(checkpoint, checkpoint.config["vocab_size"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_byte_level_pre_tokenizer_is_told_from_all_others_by_what_it_does(kind: str) -> None:
    found, notes = identify(byte_level(kind), "m")
    assert found.name == kind
    assert bool(notes) == (kind in STANDS_IN)


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_makes_the_source_tokenizers_ids_of_real_text(kind: str, tmp_path: Path) -> None:
    tokenizer = byte_level(kind)
    checkpoint = checkpoint_of(tokenizer, tmp_path)
    write_vocabulary(checkpoint, tmp_path / "v.gguf", checkpoint.config["vocab_size"])
    with llama_case.vocabulary(tmp_path / "v.gguf") as vocabulary:
        for text in (*(LATIN if kind in STANDS_IN else TEXTS), CHAT):
            assert vocabulary.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids, text[:60]
            assert vocabulary.encode(text, dress=True) == tokenizer.encode(text).ids
        assert vocabulary.ends(tokenizer.token_to_id("<|im_end|>"))


def test_candidates_cut_the_probe_each_in_its_own_way() -> None:
    from sottovoce_compiler.lowerings.gguf.pretokenizer import PROBE, cutter

    cuts = {}
    for one in CANDIDATES:
        words = tuple(word for word, _ in cutter(one.published or one.patterns).pre_tokenize_str(PROBE))
        cuts.setdefault(words, []).append(one.name)
    assert list(cuts.values()).count(["llama-bpe", "smaug-bpe"]) == 1  # told apart by ignore_merges
    assert len(cuts) == len(CANDIDATES) - 1


def test_a_pre_tokenizer_that_llama_cpp_does_not_have_is_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = byte_level("gpt-2")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(UnsupportedModelError, match=r"some-model: the tokenizer cuts text as none of llama\.cpp's"):
        table_of(tokenizer, tmp_path)


def test_whether_words_are_merged_matters_only_where_a_token_shows_it(tmp_path: Path) -> None:
    tokenizer = byte_level("qwen2")
    tokenizer.model.ignore_merges = True  # llama.cpp's qwen2 merges; every token here is reached by merges
    assert table_of(tokenizer, tmp_path).pre == "qwen2"
    from tokenizers import models

    vocab = tokenizer.get_vocab(with_added_tokens=False)
    unreached = {**vocab, "unreachedxyz": max(vocab.values()) + 50}
    merges = [tuple(one) for one in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokenizer.model = models.BPE(vocab=unreached, merges=merges, ignore_merges=True)
    with pytest.raises(UnsupportedModelError, match=r"ignore_merges is true, llama\.cpp's qwen2 has it otherwise"):
        table_of(tokenizer, tmp_path)


@pytest.mark.parametrize("prefix", ["always", "never"])
def test_llama_cpp_makes_the_ids_of_a_converted_sentencepiece_of_real_text(prefix: str, tmp_path: Path) -> None:
    tokenizer = pieces(prefix)
    checkpoint = checkpoint_of(tokenizer, tmp_path)
    table = write_vocabulary(checkpoint, tmp_path / "v.gguf", checkpoint.config["vocab_size"])
    assert (table.model, table.space_prefix, table.notes) == ("llama", prefix == "always", ())
    chat = "<s>[tool] hello</s>\n<s>  you  there</s> <s> 1<0x41>2</s>"
    with llama_case.vocabulary(tmp_path / "v.gguf") as vocabulary:
        for text in (*TEXTS, chat, "run" + " " * 40 + "out", "\t\t\tx\n\n\n\ny"):
            assert vocabulary.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids, text[:60]


def test_a_source_that_puts_a_space_first_only_is_followed_in_chats_and_says_so(tmp_path: Path) -> None:
    tokenizer = pieces("first")
    checkpoint = checkpoint_of(tokenizer, tmp_path, chat_template="{{ messages }}")
    table = write_vocabulary(checkpoint, tmp_path / "v.gguf", checkpoint.config["vocab_size"])
    assert not table.space_prefix
    assert table.notes == (
        "a text that does not begin with a special token is tokenized without the source's first space",
    )
    chat = "<s>[tool] hello</s>\n<s>  you  there</s> <s> 1</s>you"
    with llama_case.vocabulary(tmp_path / "v.gguf") as vocabulary:
        assert vocabulary.encode(chat) == tokenizer.encode(chat, add_special_tokens=False).ids
    with pytest.raises(UnsupportedModelError, match="make other tokens of a fixed text"):
        token_table(replace(checkpoint, chat_template=None), checkpoint.config["vocab_size"])


def test_types_scores_and_special_ids_are_written(tmp_path: Path) -> None:
    tokenizer = pieces("always")
    checkpoint = checkpoint_of(tokenizer, tmp_path, generation_config={"eos_token_id": [2, 5]})
    size = checkpoint.config["vocab_size"] + 3
    write_vocabulary(checkpoint, tmp_path / "v.gguf", size)
    fields = GGUFReader(tmp_path / "v.gguf").fields
    types = fields["tokenizer.ggml.token_type"].contents()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert types[:3] == [TokenType.CONTROL] * 3
    assert types[3] == TokenType.BYTE
    assert tokens[-3:] == [f"[PAD{index}]" for index in range(size - 3, size)]
    assert types[-3:] == [TokenType.UNUSED] * 3
    assert types[tokens.index("[tool]")] == TokenType.USER_DEFINED
    assert types[tokens.index(SPACE * 4)] == TokenType.NORMAL
    scores = fields["tokenizer.ggml.scores"].contents()
    assert scores[259] > scores[260] > scores[261]  # earlier merges first
    ids = {key: fields[f"tokenizer.ggml.{key}_token_id"].contents() for key in ("bos", "eos", "eot")}
    assert ids == {"bos": 1, "eos": 2, "eot": 5}
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_the_tokenizer_config_decides_whether_text_begins_with_a_token(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(byte_level("llama-bpe"), tmp_path)
    config = {"eos_token": SPECIAL[2], "bos_token": SPECIAL[0]}
    size = checkpoint.config["vocab_size"]
    assert token_table(replace(checkpoint, tokenizer_config=config), size).special.adds_begin
    says = {**config, "add_bos_token": False}
    assert not token_table(replace(checkpoint, tokenizer_config=says), size).special.adds_begin


def test_a_merge_that_is_missing_among_pieces_is_refused(tmp_path: Path) -> None:

    tokenizer = pieces("always")
    checkpoint = checkpoint_of(tokenizer, tmp_path)
    assert checkpoint.tokenizer_file is not None
    content = json.loads(checkpoint.tokenizer_file.read_text())
    left, right = content["model"]["merges"].pop()
    checkpoint.tokenizer_file.write_text(json.dumps(content))
    with pytest.raises(UnsupportedModelError, match="are tokens and so is their sum, but no merge joins them"):
        token_table(checkpoint, checkpoint.config["vocab_size"])
    assert left and right


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", {"type": "Lowercase"}, "normalizes by"),
        ("model", {"type": "Unigram", "vocab": [["a", -1.0]]}, "'Unigram'; only BPE is supported"),
        ("model", {"type": "BPE", "vocab": {"a": -1}, "merges": []}, "an id of the vocabulary"),
        ("model", {"type": "BPE", "vocab": {"a": 1}, "merges": ["a b c"]}, "not a pair"),
        ("added_tokens", [{"content": 1}], "lacks id or content"),
    ],
)
def test_what_cannot_be_lowered_is_refused_by_name(part: str, value: object, message: str, tmp_path: Path) -> None:

    checkpoint = checkpoint_of(byte_level("gpt-2"), tmp_path)
    assert checkpoint.tokenizer_file is not None
    content = json.loads(checkpoint.tokenizer_file.read_text())
    checkpoint.tokenizer_file.write_text(json.dumps({**content, part: value}))
    with pytest.raises((UnsupportedModelError, SourceError), match=message):
        token_table(checkpoint, checkpoint.config["vocab_size"])


def test_a_tokenizer_that_composes_characters_says_that_llama_cpp_does_not(tmp_path: Path) -> None:
    from tokenizers import normalizers

    tokenizer = byte_level("qwen2")
    tokenizer.normalizer = normalizers.NFC()
    assert table_of(tokenizer, tmp_path).notes == (
        "the source composes characters (NFC) before it tokenizes; llama.cpp does not",
    )


def test_space_after_special_tokens_is_dropped_as_phi_3_drops_it(tmp_path: Path) -> None:
    from tokenizers import AddedToken

    tokenizer = pieces("always")
    end, user = ("<|endoftext|>", "<|user|>")
    for text, strips in ((end, False), (user, True), ("</s>", True), ("[tool]", True)):
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False, rstrip=strips)])
    checkpoint = checkpoint_of(tokenizer, tmp_path, name="tuned")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] in (user, "</s>", "[tool]")
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    source = type(tokenizer).from_file(str(tmp_path / "tokenizer.json"))
    table = write_vocabulary(checkpoint, tmp_path / "v.gguf", checkpoint.config["vocab_size"])
    assert (table.strips_after_special, table.notes) == (True, ())
    chat = "<s> a<|user|>\n  Hi </s> \n you<|endoftext|> there [tool]  x"
    with llama_case.vocabulary(tmp_path / "v.gguf") as vocabulary:
        assert vocabulary.encode(chat) == source.encode(chat, add_special_tokens=False).ids


def test_space_that_llama_cpp_keeps_after_a_special_token_is_said(tmp_path: Path) -> None:
    from tokenizers import AddedToken

    tokenizer = byte_level("gpt-2")
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)])
    table = table_of(tokenizer, tmp_path)
    assert table.notes == (
        "the source drops space before '<mask>'; llama.cpp does not",
        "the source drops space after '<mask>'; llama.cpp does not",
    )


@pytest.mark.weights
def test_the_real_smollm2s_tokens_are_its_own_again(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    checkpoint = resolve("smollm2-135m-instruct")
    table = write_vocabulary(checkpoint, tmp_path / "v.gguf", checkpoint.config["vocab_size"])
    assert (table.pre, table.notes) == ("smollm", ())
    source = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    with llama_case.vocabulary(tmp_path / "v.gguf") as vocabulary:
        for text in (*TEXTS, CHAT):
            assert vocabulary.encode(text) == source.encode(text, add_special_tokens=False).ids
