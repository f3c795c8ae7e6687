"""The tokenizer of a GGUF file, repaired: its tokens, merges and pre-tokenizer as a tokenizer.json.

A GGUF file names its pre-tokenizer and leaves out how it cuts; read without that, digits and spaces fall together and
the model sees tokens that it was never trained on. SentencePiece vocabularies have scores where tokenizer.json has
merges, which are put back in the scores' order. Knows llama.cpp's token types. Does not know what tokens mean.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.files import cache_root
from sottovoce_compiler.sources.gguf_config import Metadata
from sottovoce_compiler.sources.vocabulary import MAX_TOKENS, token_bytes

RULES = 2  # raise it when what is written changes: the files are kept in the cache
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # what a space is in SentencePiece
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's token types
# Names under which llama.cpp has a pre-tokenizer of `pretokenizer.CANDIDATES`. "default" is none of them: a converter
# writes it, or nothing, where it did not know how the source cuts.
_SAME = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral"), "llama-bpe"),
    **dict.fromkeys(("gpt2", "phi-2"), "gpt-2"),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez"), "qwen2"),
    "llama4": "gpt-4o",
}
_BEGIN = ("llama-bpe", "tekken")  # text begins with the beginning token unless the file says otherwise
_COMPOSING = ("qwen2", "qwen35")  # published with a tokenizer.json that composes characters (NFC) before it cuts


def tokenizer_file(data: Metadata, sha256: str) -> Path:
    """A tokenizer.json in the cache, made from the metadata of the file with this digest.

    A `SourceError` names a kind of tokenizer or a pre-tokenizer that is not known here.
    """
    file = cache_root() / "tokenizers" / f"{sha256}-{RULES}.json"
    if not file.is_file():
        content = str(_build(data).to_str())
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, work = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(content)
            os.replace(work, file)
        except BaseException:
            Path(work).unlink(missing_ok=True)
            raise
    return file


def vocabulary_of(data: Metadata) -> list[bytes | str]:
    """What each token stands for: bytes, or the spelling of a special token."""
    tokens, types = _tokens(data)
    plain = _sentencepiece_bytes if data.values.get("tokenizer.ggml.model") == "llama" else _byte_level
    special = (_CONTROL, _UNKNOWN, _USER)
    return [
        token if kind in special else plain(token, kind, data.name) for token, kind in zip(tokens, types, strict=True)
    ]


def adds_begin(data: Metadata) -> bool:
    """Whether text begins with the beginning token: as the file says, else as llama.cpp has it."""
    said = data.values.get("tokenizer.ggml.add_bos_token")
    if isinstance(said, bool):
        return said
    return data.values.get("tokenizer.ggml.model") == "llama" or _pre_name(data) in _BEGIN


def _pre_name(data: Metadata) -> str:
    name = data.values.get("tokenizer.ggml.pre", "default")
    return _SAME.get(name, name) if isinstance(name, str) else "default"


def _build(data: Metadata) -> Any:
    kind = data.values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = _byte_pairs(data)
    elif kind == "llama":
        tokenizer = _pieces(data)
    else:
        raise SourceError(
            f"{data.name}: tokenizer {str(kind)[:40]!r} cannot be read from GGUF; known are gpt2 and llama"
        )
    from tokenizers import AddedToken

    tokens, types = _tokens(data)
    for kinds, special, add in (
        ((_CONTROL, _UNKNOWN), True, tokenizer.add_special_tokens),
        ((_USER,), False, tokenizer.add_tokens),
    ):
        chosen = [index for index, what in enumerate(types) if what in kinds]
        add([AddedToken(tokens[index], special=special, normalized=False) for index in chosen])
        if twice := [index for index in chosen if tokenizer.token_to_id(tokens[index]) != index]:
            raise SourceError(f"{data.name}: token {twice[0]}, {tokens[twice[0]][:40]!r}, is there twice")
    return tokenizer


def _byte_pairs(data: Metadata) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    from sottovoce_compiler.lowerings.gguf.pretokenizer import CANDIDATES, cutter

    name = _pre_name(data)
    known = {one.name: one for one in CANDIDATES}
    if (pre := known.get(name)) is None:
        names = ", ".join(sorted({*known, *_SAME}))
        raise SourceError(f"{data.name}: pre-tokenizer {name[:40]!r} is not known; known are {names}")
    tokens, _ = _tokens(data)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(
        vocab=vocabulary, merges=_merges(data, vocabulary), ignore_merges=pre.whole_words, fuse_unk=False
    )
    tokenizer = Tokenizer(model)
    if name in _COMPOSING:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = cutter(pre.published or pre.patterns)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(data: Metadata, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    lines = data.values.get("tokenizer.ggml.merges")
    if not isinstance(lines, list):
        raise SourceError(f"{data.name}: tokenizer.ggml.merges is missing; without it text cannot become tokens")
    merges = []
    for number, line in enumerate(lines):
        left, space, right = line.partition(" ")
        if not space or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise SourceError(f"{data.name}: merge {number}, {line[:60]!r}, is not of two tokens into a third")
        merges.append((left, right))
    return merges


def _pieces(data: Metadata) -> Any:
    """SentencePiece's BPE: pieces with scores; what is in no piece becomes bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens, types = _tokens(data)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = data.values.get("tokenizer.ggml.unknown_token_id", 0)
    model = models.BPE(
        vocab=vocabulary,
        merges=_merges_by_score(data, tokens, types, vocabulary),
        unk_token=tokens[unknown] if isinstance(unknown, int) and 0 <= unknown < len(tokens) else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    prefix = bool(data.values.get("tokenizer.ggml.add_space_prefix", True))
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges_by_score(
    data: Metadata, tokens: Sequence[str], types: Sequence[int], vocabulary: Mapping[str, int]
) -> list[tuple[str, str]]:
    scores = data.values.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(tokens):
        raise SourceError(f"{data.name}: tokenizer.ggml.scores is missing or not as long as the tokens")
    whole = {index for index, kind in enumerate(types) if kind in (_NORMAL, _USER)}
    found = []
    for token, index in vocabulary.items():
        if index not in whole:
            continue
        for cut in range(1, len(token)):
            left, right = vocabulary.get(token[:cut]), vocabulary.get(token[cut:])
            if left in whole and right in whole:
                found.append((-float(scores[index]), index, left, right))
    found.sort()
    return [(tokens[left], tokens[right]) for _, _, left, right in found if left is not None and right is not None]


def _tokens(data: Metadata) -> tuple[list[str], list[int]]:
    tokens, types = data.values.get("tokenizer.ggml.tokens"), data.values.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not 0 < len(tokens) <= MAX_TOKENS:
        raise SourceError(f"{data.name}: tokenizer.ggml.tokens is missing or absurd; the file has no tokenizer")
    if not isinstance(types, np.ndarray) or len(types) != len(tokens):
        raise SourceError(f"{data.name}: tokenizer.ggml.token_type is missing or not as long as the tokens")
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError:  # what is not UTF-8 was read as surrogates
        raise SourceError(f"{data.name}: a token is not UTF-8; fetch the file again") from None
    return tokens, [int(kind) for kind in types]


def _byte_level(token: str, kind: int, name: str) -> bytes:
    return token_bytes(token, Path(name)) if kind != _UNUSED else b""


def _sentencepiece_bytes(token: str, kind: int, name: str) -> bytes:
    if kind == _BYTE:
        try:
            return bytes([int(token.removeprefix("<0x").removesuffix(">"), 16)])
        except ValueError:
            raise SourceError(f"{name}: token {token[:40]!r} is said to be a byte") from None
    return token.replace(SPACE, " ").encode() if kind != _UNUSED else b""
