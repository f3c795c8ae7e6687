"""Tokenizers trained on the spot, of the kinds that published models have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sottovoce_compiler.sources.checkpoint import Checkpoint

from .text_case import TEXTS

SPECIAL = ("<|begin|>", "<|im_start|>", "<|im_end|>")
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _TAIL
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
# What published tokenizer.json files have, by llama.cpp's name: patterns (None: ByteLevel's own), ignore_merges.
PUBLISHED: dict[str, tuple[list[str] | None, bool]] = {
    "gpt-2": (None, False),
    "llama-bpe": ([_WORDS % r"\p{N}{1,3}"], True),
    "smaug-bpe": ([_WORDS % r"\p{N}{1,3}"], False),
    "qwen2": ([_WORDS % r"\p{N}"], False),
    "qwen35": (
        [
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
            r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _TAIL
        ],
        False,
    ),
    "tekken": (
        [
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _TAIL
        ],
        True,
    ),
    "gpt-4o": (
        [
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _TAIL
        ],
        False,
    ),
    "deepseek-v3": (
        [
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            r"| ?[\p{P}\p{S}]+[\r\n]*|" + _TAIL,
        ],
        False,
    ),
}


def byte_level(name: str, size: int = 900) -> Any:
    """A byte-level BPE tokenizer that cuts as those of llama.cpp's `name` do; the first special token begins text."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    if name == "smollm":
        cutter = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        patterns, tokenizer.model.ignore_merges = PUBLISHED[name]
        cutter = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns or ()]
        cutter.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=patterns is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cutter)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], 0)]
    )
    return tokenizer


def pieces(prefix: str, size: int = 700) -> Any:
    """A BPE tokenizer converted from SentencePiece's kind: bytes to fall back to, every merge that the pieces allow.

    `prefix`: "always" a space before text, "first" only where it begins, "never".
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", SPACE)
    trained.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    learned = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    made = [piece for piece in learned if len(piece) > 1]
    made += [run for run in (SPACE * count for count in range(2, 17)) if run not in made]
    single = [piece for piece in learned if len(piece) == 1]
    special = ["<unk>", "<s>", "</s>"]
    listed = [
        *special,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *made,
        *single,
        *(() if SPACE in single else SPACE),
    ]
    ids = {piece: i for i, piece in enumerate(listed)}
    merges = [
        (piece[:at], piece[at:])
        for piece in made
        for at in range(1, len(piece))
        if piece[:at] in ids and piece[at:] in ids
    ]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if prefix == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    else:
        parts = [normalizers.Replace(" ", SPACE)]
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE), *parts] if prefix == "always" else parts
        )
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken("[tool]", special=False, normalized=False)])
    return tokenizer


class NoTensors:
    def names(self) -> list[str]:
        return []

    def shape(self, name: str) -> tuple[int, ...]:
        raise AssertionError(name)

    def load(self, name: str) -> Any:
        raise AssertionError(name)


def checkpoint_of(tokenizer: Any, folder: Path, **fields: Any) -> Checkpoint:
    """A checkpoint of a tokenizer alone; the last of its special tokens ends text."""
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    specials = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    plain = Checkpoint(
        spec="somebody/some-model",
        name="some-model",
        config={"vocab_size": tokenizer.get_vocab_size()},
        generation_config={},
        tensors=NoTensors(),
        vocabulary=(),
        tokenizer_file=file,
        licence="Apache-2.0",
        revision=None,
        sha256={},
        tokenizer_config={
            "eos_token": specials[-1],
            "bos_token": {"content": "<s>" if "<s>" in specials else specials[0]},
        },
    )
    return replace(plain, **fields)
