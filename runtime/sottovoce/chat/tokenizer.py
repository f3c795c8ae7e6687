"""The vocabulary of a bundle's `tokenizer.json`, through the `tokenizers` library.

Knows how tokens spell bytes: byte-level vocabularies, where a character stands for each byte, and SentencePiece's, with
U+2581 for a space and `<0x0A>` for a byte. Knows nothing of models, templates or messages.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from sottovoce.errors import BundleError, InputError, MissingExtraError

MAX_TOKENIZER_BYTES = 128 << 20  # Gemma's, the largest seen, has 33 MB
_MAX_VOCABULARY = 1 << 22
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


class TokenizerVocabulary:
    """A `Vocabulary` (see `sottovoce.engines.chat`) of `size` tokens. Not for two threads at once."""

    def __init__(self, data: bytes, generation: Mapping[str, Any], size: int) -> None:
        """`data` is a tokenizer.json; `generation`, from the manifest, has `bos`, `adds_bos` and `ends`.

        Raises BundleError where either is damaged, MissingExtraError without the `tokenizers` library.
        """
        if len(data) > MAX_TOKENIZER_BYTES:
            raise BundleError(f"tokenizer.json has {len(data)} bytes, more than the {MAX_TOKENIZER_BYTES} allowed")
        self._tokenizer = _open(data)
        if self._tokenizer.get_vocab_size(with_added_tokens=True) > _MAX_VOCABULARY or not 0 < size <= _MAX_VOCABULARY:
            raise BundleError(f"a vocabulary of {size} tokens; 1 to {_MAX_VOCABULARY} is possible")
        self._size = size
        self._byte_level = "ByteLevel" in _kinds(data)
        added = self._tokenizer.get_added_tokens_decoder()
        self._added: dict[int, bytes] = {token: value.content.encode() for token, value in added.items()}
        self._controls = frozenset(token for token, value in added.items() if value.special)
        self._bos = _token(generation, "bos", size)
        self._adds_bos = _flag(generation, "adds_bos") and self._bos is not None
        self._ends = _tokens(generation, "ends", size)

    @property
    def size(self) -> int:
        return self._size

    @property
    def bos(self) -> int | None:
        return self._bos

    @property
    def adds_bos(self) -> bool:
        return self._adds_bos

    @property
    def ends(self) -> frozenset[int]:
        return self._ends

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See `Vocabulary.encode`. Added tokens that are not special (`<think>` in some models) are tokens in both
        cases, as they are to the model's own tokenizer. Raises InputError for text that is not valid Unicode."""
        self._tokenizer.encode_special_tokens = not special
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise InputError(f"text that cannot be encoded: {str(error)[:100]}") from None
        return [token for token in ids if token < self._size]

    def token_bytes(self, token: int) -> bytes:
        if (content := self._added.get(token)) is not None:
            return content
        text = self._tokenizer.id_to_token(token) if 0 <= token < self._size else None
        if text is None:
            return b""
        return _byte_level_bytes(text) if self._byte_level else _sentencepiece_bytes(text)

    def is_control(self, token: int) -> bool:
        return token in self._controls


def _open(data: bytes) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError(
            "this bundle's tokenizer needs the tokenizers library: pip install 'sottovoce[chat-onnx]'"
        ) from None
    try:
        tokenizer = Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises plain Exception
        raise BundleError(f"tokenizer.json cannot be read: {str(error)[:100]}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _kinds(data: bytes) -> set[str]:
    """The types of the decoder and the parts that it is made of."""
    decoder = json.loads(data).get("decoder") or {}
    return {str(part.get("type")) for part in [decoder, *decoder.get("decoders", [])]}


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for U+0100 and up, in order."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain}
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def _byte_level_bytes(text: str) -> bytes:
    table = _byte_of_character()
    if all(char in table for char in text):
        return bytes(table[char] for char in text)
    return text.encode()  # a token that was put in as plain text


def _sentencepiece_bytes(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes([int(text[3:5], 16)])
        except ValueError:
            pass
    return text.replace(_SPACE, " ").encode()


def _token(generation: Mapping[str, Any], key: str, size: int) -> int | None:
    value = generation.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < size:
        raise BundleError(f"the manifest has {key} = {value!r:.50}; a token below {size} is possible")
    return value


def _flag(generation: Mapping[str, Any], key: str) -> bool:
    value = generation.get(key, False)
    if not isinstance(value, bool):
        raise BundleError(f"the manifest has {key} = {value!r:.50}; true or false is possible")
    return value


def _tokens(generation: Mapping[str, Any], key: str, size: int) -> frozenset[int]:
    values = generation.get(key, [])
    if not isinstance(values, list):
        raise BundleError(f"the manifest has {key} = {values!r:.50}; a list of tokens is possible")
    found = [_token({key: value}, key, size) for value in values]
    if None in found:
        raise BundleError(f"the manifest has no token in {key}")
    return frozenset(token for token in found if token is not None)
