"""What a chat bundle says of tokens and of how to draw them: the manifest's `generation` for language models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.lowerings.gguf.tokenizer_file import read_tokenizer_file, special_text
from sottovoce_compiler.lowerings.gguf.vocabulary import special_tokens
from sottovoce_compiler.sources.checkpoint import Checkpoint

_SAMPLED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, slots=True)
class ChatTokens:
    """`bos` begins text where `adds_bos`; `ends` end an answer; `special` are the variables that templates read;
    `sampling` is what the model's maker recommends; `composes`: text is brought to Unicode's NFC before it is cut."""

    bos: int | None
    adds_bos: bool
    ends: tuple[int, ...]
    special: Mapping[str, str]
    sampling: Mapping[str, float]
    composes: bool

    def to_json(self) -> dict[str, Any]:
        """The manifest's `generation`."""
        return {
            "bos": self.bos,
            "adds_bos": self.adds_bos,
            "ends": list(self.ends),
            "special_tokens": dict(self.special),
            "sampling": dict(self.sampling),
            "composes": self.composes,
        }


def chat_tokens(checkpoint: Checkpoint, spec: CausalSpec) -> ChatTokens:
    """Raises SourceError for a damaged tokenizer, UnsupportedModelError where no token ends text."""
    tokenizer = read_tokenizer_file(checkpoint)
    ids = special_tokens(checkpoint, tokenizer, spec.vocab_size)
    special = {name: text for name in _SPECIAL if (text := special_text(checkpoint, name)) is not None}
    config = checkpoint.generation_config
    # A config that does not sample has numbers that nobody chose.
    given = {} if config.get("do_sample") is False else {name: config.get(name) for name in _SAMPLED}
    sampling = {name: value for name, value in given.items() if _is_number(value)}
    composes = tokenizer.content.get("normalizer") == {"type": "NFC"}
    return ChatTokens(ids.begin, ids.adds_begin, ids.ends, special, sampling, composes)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
