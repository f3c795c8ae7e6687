"""The token table: id -> bytes for what is text, str for what is a special token.

Knows byte-level BPE files (tokenizer.json; vocab.json with added_tokens.json; CTranslate2's vocabulary.txt
or .json), BPE files with byte fallback, as SentencePiece's are converted (tokenizer.json), and Whisper's timestamp
tokens, which some of those files leave out. Does not encode text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.files import read_json, read_json_object, read_text

MAX_TOKENS = 2_000_000  # the largest published vocabulary has about 260,000
TIMESTAMP_STEP = 0.02  # seconds; Whisper marks times in steps of two encoder input frames
TIMESTAMP_COUNT = 1501  # 0.00 to 30.00 s
_SPECIAL = re.compile(r"<\|[^|]*\|>")
_BRACKETED = re.compile(r"<[^<>]+>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's stand-in for a space

Token = bytes | str


@cache
def _byte_of_character() -> Mapping[str, int]:
    """GPT-2's stand-ins for bytes: a byte that prints in Latin-1 for itself, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def token_bytes(text: str, file: Path) -> bytes:
    """The bytes that a byte-level BPE token stands for; `file` is named when it holds something else."""
    table = _byte_of_character()
    try:
        return bytes(table[character] for character in text)
    except KeyError:
        raise SourceError(f"{file}: token {text!r} is not byte-level BPE, the only kind that is read") from None


def piece_bytes(text: str, file: Path) -> bytes:
    """The bytes of a SentencePiece token: a byte spelt <0x0A>, or text with its stand-in for spaces."""
    if found := _BYTE.fullmatch(text):
        return bytes([int(found[1], 16)])
    return text.replace(_SPACE, " ").encode("utf-8")


def read_tokenizer(folder: Path) -> list[Token] | None:
    """The tokens of tokenizer.json, else of vocab.json with added_tokens.json; None without either."""
    if (file := folder / "tokenizer.json").is_file():
        return _read_tokenizer_json(file)
    if (file := folder / "vocab.json").is_file():
        ordinary = _ids(read_json_object(file), file)
        added = folder / "added_tokens.json"
        extra = _ids(read_json_object(added), added) if added.is_file() else {}
        return _table(ordinary, {text: (index, False) for text, index in extra.items()}, file)
    return None


def read_ctranslate2(folder: Path) -> list[Token] | None:
    """The tokens of CTranslate2's vocabulary.json or vocabulary.txt, by id; None without either."""
    if (file := folder / "vocabulary.json").is_file():
        tokens = read_json(file)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise SourceError(f"{file} should hold a list of strings; fetch the model again")
    elif (file := folder / "vocabulary.txt").is_file():
        tokens = read_text(file).removesuffix("\n").split("\n")
    else:
        return None
    return [token if _SPECIAL.fullmatch(token) else token_bytes(token, file) for token in tokens]


def merge(tokenizer: list[Token] | None, vocabulary: list[Token] | None, folder: Path) -> list[Token]:
    """One table from both files of a CTranslate2 folder.

    Text tokens must agree, since a mix-up of two models would show there. For special tokens the tokenizer
    has the word (conversions renamed some, <|nocaptions|> for one), and the longer file supplies what the
    other lacks.
    """
    if tokenizer is None or vocabulary is None:
        return tokenizer or vocabulary or []
    for index, (ours, theirs) in enumerate(zip(tokenizer, vocabulary, strict=False)):
        if ours != theirs and isinstance(ours, bytes) and isinstance(theirs, bytes):
            raise SourceError(
                f"{folder}: token {index} is {ours!r} in tokenizer.json, {theirs!r} in the vocabulary file; "
                "they are from different models: fetch the model again"
            )
    return tokenizer + vocabulary[len(tokenizer) :]


def with_timestamps(tokens: Sequence[Token], size: int) -> list[Token]:
    """`tokens` with Whisper's timestamps after <|notimestamps|>, as far as the model's `size` rows reach.

    Tokenizers published with Whisper stop at <|notimestamps|>: the model has 1501 more rows, whose meaning
    is fixed.
    """
    complete = list(tokens[:size])
    if complete and complete[-1] == "<|notimestamps|>":
        missing = min(size - len(complete), TIMESTAMP_COUNT)
        complete += [f"<|{step * TIMESTAMP_STEP:.2f}|>" for step in range(missing)]
    return complete


def ids_of_special(tokens: Sequence[Token]) -> dict[str, int]:
    """Special token -> id; of a token that occurs twice the first id counts."""
    ids: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if isinstance(token, str):
            ids.setdefault(token, index)
    return ids


def _read_tokenizer_json(file: Path) -> list[Token]:
    content = read_json_object(file)
    model, added = content.get("model"), content.get("added_tokens") or []
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict) or not isinstance(added, list):
        raise SourceError(
            f"{file} has no BPE vocabulary (model.vocab); only byte-level BPE, or BPE with byte fallback, is read"
        )
    try:
        ids = _ids({str(token["content"]): token["id"] for token in added}, file)
        flags = {str(token["content"]): bool(token.get("special", False)) for token in added}
    except (KeyError, TypeError, AttributeError):
        raise SourceError(f"{file}: an entry of added_tokens lacks id or content; fetch the model again") from None
    read = piece_bytes if model.get("byte_fallback") is True else token_bytes
    return _table(_ids(model["vocab"], file), {text: (ids[text], flags[text]) for text in ids}, file, read)


def _ids(entries: Mapping[str, object], file: Path) -> dict[str, int]:
    ids: dict[str, int] = {}
    for text, index in entries.items():
        if not isinstance(index, int) or not 0 <= index < MAX_TOKENS:
            raise SourceError(f"{file}: token {text!r} has the id {index!r}; expected 0 to {MAX_TOKENS - 1}")
        ids[text] = index
    return ids


def _table(
    ordinary: Mapping[str, int],
    added: Mapping[str, tuple[int, bool]],
    file: Path,
    read: Callable[[str, Path], bytes] = token_bytes,
) -> list[Token]:
    """Places tokens at their ids; an id that no file names becomes the special token <|unused-ID|>.

    `added` maps literal text to its id and whether the file calls it special. Files flag Whisper's
    timestamps as not special, and added_tokens.json has no flags, so the form <...> counts as well; other
    added text is text.
    """
    added_ids = {index for index, _ in added.values()}
    size = 1 + max([*ordinary.values(), *added_ids], default=-1)
    tokens: list[Token] = [f"<|unused-{index}|>" for index in range(size)]
    for text, index in ordinary.items():
        if index not in added_ids:
            tokens[index] = text if _SPECIAL.fullmatch(text) else read(text, file)
    for text, (index, special) in added.items():
        tokens[index] = text if special or _BRACKETED.fullmatch(text) else text.encode("utf-8")
    return tokens
