"""What transformers' `generate` must be told about a Whisper checkpoint whose generation_config.json may be
missing.

Knows the names of Whisper's special tokens. Everything published with the model is taken as it is; the rest
follows from the vocabulary.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError

_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Token ids; `languages` (code -> id) is empty for an English-only model."""

    start: int
    end: int
    no_timestamps: int
    no_speech: int
    tasks: Mapping[str, int]
    languages: Mapping[str, int]

    @property
    def timestamp_begin(self) -> int:
        """The id of <|0.00|>."""
        return self.no_timestamps + 1


def special_tokens(checkpoint: Checkpoint) -> SpecialTokens:
    """The special tokens by their names in the vocabulary; a missing one is a `SourceError`."""
    ids = {token: i for i, token in reversed(list(enumerate(checkpoint.vocabulary))) if isinstance(token, str)}

    def one(*names: str) -> int:
        for name in names:
            if name in ids:
                return ids[name]
        raise SourceError(f"{checkpoint.spec}: the vocabulary has no token {names[0]}; is it a Whisper model?")

    # English-only models have the language tokens in their vocabulary too, but were never trained on them.
    multilingual = checkpoint.generation_config.get("is_multilingual", checkpoint.config["vocab_size"] >= 51865)
    size = checkpoint.config["vocab_size"]
    languages = {m[1]: i for token, i in ids.items() if (m := _LANGUAGE.fullmatch(token)) and i < size}
    return SpecialTokens(
        start=one("<|startoftranscript|>"),
        end=one("<|endoftext|>"),
        no_timestamps=one("<|notimestamps|>"),
        no_speech=one("<|nospeech|>", "<|nocaptions|>"),
        tasks={task: one(f"<|{task}|>") for task in ("transcribe", "translate")} if multilingual else {},
        languages=dict(sorted(languages.items(), key=lambda item: item[1])) if multilingual else {},
    )


def make_generation_config(checkpoint: Checkpoint, special: SpecialTokens) -> Any:
    """A transformers `GenerationConfig` for greedy decoding."""
    from transformers import GenerationConfig

    published, config = checkpoint.generation_config, checkpoint.config
    begin = [*_space(checkpoint), special.end]
    settings = {
        "decoder_start_token_id": special.start,
        "bos_token_id": special.end,
        "eos_token_id": special.end,
        "pad_token_id": special.end,
        "no_timestamps_token_id": special.no_timestamps,
        "max_initial_timestamp_index": published.get("max_initial_timestamp_index", 50),  # 1 s
        "is_multilingual": bool(special.languages),
        "suppress_tokens": published.get("suppress_tokens", config.get("suppress_tokens")) or None,
        "begin_suppress_tokens": published.get("begin_suppress_tokens", config.get("begin_suppress_tokens")) or begin,
        "max_length": config["max_target_positions"],
        "do_sample": False,
        "num_beams": 1,
    }
    if special.languages:
        settings["lang_to_id"] = {f"<|{code}|>": index for code, index in special.languages.items()}
        settings["task_to_id"] = dict(special.tasks)
    make: Any = GenerationConfig  # transformers is not typed
    return make(**settings)


def _space(checkpoint: Checkpoint) -> list[int]:
    """The id of the token that is one space: a transcript does not begin with it."""
    return [index for index, token in enumerate(checkpoint.vocabulary) if token == b" "][:1]
