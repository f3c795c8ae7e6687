"""A tokenizer.json and the files beside it, read and bounded: vocabulary, merges, added tokens, special tokens.

Knows Hugging Face's format; nothing of GGUF.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError
from sottovoce_compiler.sources.files import read_json_object
from sottovoce_compiler.sources.vocabulary import MAX_TOKENS

MAX_MERGES = 4 * MAX_TOKENS


@dataclass(frozen=True, slots=True)
class Added:
    """One of `added_tokens`: text that is one token wherever it stands."""

    text: str
    id: int
    special: bool
    strips: tuple[bool, bool]  # space before it, space after it
    normalized: bool


@dataclass(frozen=True)
class TokenizerFile:
    """A BPE tokenizer. `name` is the model's, for errors; `content` the whole file."""

    name: str
    content: Mapping[str, Any]
    vocab: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    added: tuple[Added, ...]

    @property
    def byte_level(self) -> bool:
        """Whether tokens are spelled in the byte-level alphabet (GPT-2's); else they are text."""
        parts = json.dumps([self.content.get("pre_tokenizer"), self.content.get("decoder")])
        return '"ByteLevel"' in parts

    def ids(self) -> dict[str, int]:
        """Text -> id of every token, added ones included."""
        return {**self.vocab, **{token.text: token.id for token in self.added}}

    def library(self) -> Any:
        """The `tokenizers.Tokenizer`."""
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_str(json.dumps(self.content))
        except Exception as error:  # the library raises plain Exception
            raise SourceError(f"{self.name}: tokenizer.json cannot be used ({error}); fetch it again") from None


def read_tokenizer_file(checkpoint: Checkpoint) -> TokenizerFile:
    """The tokenizer of a checkpoint. SourceError for a damaged or missing file, UnsupportedModelError for a kind of
    tokenizer that is not read."""
    file = checkpoint.tokenizer_file
    if file is None:
        raise SourceError(
            f"{checkpoint.name}: there is no tokenizer.json; load the tokenizer with transformers' AutoTokenizer and "
            "save it there with save_pretrained"
        )
    content = read_json_object(file)
    model = content.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("vocab"), Mapping) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, Mapping) else None
        raise UnsupportedModelError(f"{checkpoint.name}: the tokenizer is of type {kind!r}; only BPE is supported")
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > MAX_TOKENS:
        raise SourceError(f"{file}: added_tokens should be a list; fetch the model again")
    vocab = model["vocab"]
    if not all(_is_id(index) for index in vocab.values()):
        raise SourceError(f"{file}: an id of the vocabulary is not a number from 0 to {MAX_TOKENS - 1}")
    return TokenizerFile(
        checkpoint.name,
        content,
        vocab,
        tuple(_merges(model.get("merges"), str(file))),
        tuple(_added(token, str(file)) for token in added),
    )


def special_text(checkpoint: Checkpoint, key: str) -> str | None:
    """The text of a special token such as "eos_token", from tokenizer_config.json or special_tokens_map.json."""
    for config in (checkpoint.tokenizer_config, checkpoint.special_tokens_map):
        value = config.get(key)
        value = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            return value
    return None


def special_ids(checkpoint: Checkpoint, key: str) -> list[int]:
    """The ids of a special token such as "eos_token_id", from generation_config.json, else config.json."""
    for config in (checkpoint.generation_config, checkpoint.config):
        value = config.get(key)
        values = value if isinstance(value, list) else [value]
        if found := [int(one) for one in values if one is not None and _is_id(one)]:
            return found
    return []


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TOKENS


def _merges(value: object, file: str) -> list[tuple[str, str]]:
    """Pairs, spelled "a b" by older files and ["a", "b"] by newer ones."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MERGES:
        raise SourceError(f"{file}: merges should be a list of 1 to {MAX_MERGES}; fetch the model again")
    pairs = [tuple(one.split(" ")) if isinstance(one, str) else tuple(one) for one in value]
    if not all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs):
        raise SourceError(f"{file}: an entry of merges is not a pair; fetch the model again")
    return [(left, right) for left, right in pairs]


def _added(token: object, file: str) -> Added:
    if not isinstance(token, Mapping) or not isinstance(token.get("content"), str) or not _is_id(token.get("id")):
        raise SourceError(f"{file}: an entry of added_tokens lacks id or content; fetch the model again")
    return Added(
        token["content"],
        token["id"],
        token.get("special") is True,
        (token.get("lstrip") is True, token.get("rstrip") is True),
        token.get("normalized") is True,
    )
