"""A small real vocabulary: byte-level BPE, trained when first asked for, with control tokens and unused ones."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = ("<s>", "</s>", "<|im_end|>", "[TOOL_CALLS]", "<|tool_call|>", "<|/tool_call|>")
_TEXT = [
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}',
    '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>',
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "true false null 0 1 2 3.5 -10 2026-03-04 größer 東京 naïve",
    '[{"id": 1, "tags": ["a", "b"], "ok": true}, {"id": 2, "tags": [], "ok": false}]',
    '"red", "green", "blue", "north", "south", "email@example.org"',
] * 4


class BpeVocabulary:
    """Fulfils the engines' Vocabulary: 600 tokens or so, and three at the end that stand for nothing."""

    def __init__(self) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[AddedToken(name, special=True) for name in CONTROL],
            show_progress=False,
        )
        tokenizer.train_from_iterator(_TEXT, trainer)
        self.tokenizer = tokenizer
        self._known = tokenizer.get_vocab_size()
        spelt = _bytes_by_character()
        self._bytes = [
            name.encode() if name in CONTROL else bytes(spelt[character] for character in name)
            for name in (tokenizer.id_to_token(token) for token in range(self._known))
        ] + [b""] * 3
        self._control = {tokenizer.token_to_id(name) for name in CONTROL}

    @property
    def size(self) -> int:
        return len(self._bytes)

    @property
    def bos(self) -> int | None:
        return self.tokenizer.token_to_id("<s>")

    @property
    def adds_bos(self) -> bool:
        return True

    @property
    def ends(self) -> frozenset[int]:
        return frozenset({self.tokenizer.token_to_id("</s>"), self.tokenizer.token_to_id("<|im_end|>")})

    def encode(self, text: str, *, special: bool) -> list[int]:
        if special:
            return list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        plain = Tokenizer.from_str(self.tokenizer.to_str()) if _mentions_control(text) else self.tokenizer
        if plain is not self.tokenizer:
            plain.encode_special_tokens = True
        return list(plain.encode(text, add_special_tokens=False).ids)

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token]

    def is_control(self, token: int) -> bool:
        return token in self._control


@cache
def vocabulary() -> BpeVocabulary:
    return BpeVocabulary()


def _mentions_control(text: str) -> bool:
    return any(name in text for name in CONTROL)


def _bytes_by_character() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in plain}
    rest = [byte for byte in range(256) if byte not in plain]
    return table | {chr(256 + index): byte for index, byte in enumerate(rest)}
