"""A checkpoint without weights, with a byte-level tokenizer that has the control tokens of every template's family."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.compiler.lowerings.gguf.tokenizer_case import PUBLISHED

from sottovoce_compiler.families import language_model
from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.sources import Checkpoint
from sottovoce_compiler.sources.checkpoint import Array

CONTEXT = 4096
# family of a template -> control tokens, the first begins text; those of the second end an answer.
TOKENS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "chatml": (("<s>", "<|im_start|>", "<|im_end|>"), ("<|im_end|>",)),
    "smollm2": (("<s>", "<|im_start|>", "<|im_end|>"), ("<|im_end|>",)),
    "smollm3": (("<s>", "<|im_start|>", "<|im_end|>"), ("<|im_end|>",)),
    "qwen2": (("<s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"), ("<|im_end|>", "<|endoftext|>")),
    "qwen3": (("<s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"), ("<|im_end|>", "<|endoftext|>")),
    "llama3": (("<s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), ("<|eot_id|>",)),
    "gemma3": (("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), ("<eos>", "<end_of_turn>")),
    "phi3": (
        ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ("<|endoftext|>", "<|end|>"),
    ),
    "phi4": (("<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool_call|>"), ("<|end|>",)),
    "mistral": (("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]"), ("</s>",)),
    "r1": (("<s>", "</s>", "<U>", "<A>"), ("</s>",)),
}
_SIZES = {
    **{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1},
    **{"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5},
    "tie_word_embeddings": True,
}


class _Shapes:
    """The shapes of a Llama's tensors, and no numbers."""

    def __init__(self, vocab: int) -> None:
        layer = "model.layers.0"
        square = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
        self._shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (vocab, 8),
            **{f"{layer}.{name}.weight": (8, 8) for name in square},
            **{f"{layer}.{name}_layernorm.weight": (8,) for name in ("input", "post_attention")},
            "model.norm.weight": (8,),
        }

    def names(self) -> list[str]:
        return sorted(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def load(self, name: str) -> Array:
        raise AssertionError("data is made without weights")


def checkpoint_of(
    folder: Path, family: str, template: str | None, *, spaced: bool = False, adds_bos: bool = False, spare: int = 0
) -> Checkpoint:
    """`spaced`: SentencePiece's way, a space before what begins. The embedding has `spare` rows less than tokens."""
    control, ends = TOKENS[family]
    cut = {"llama3": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"}.get(family, "gpt-2")
    tokenizer = _spaced(control) if spaced else _byte_level(control, cut)
    file = folder / f"{family}-{spaced}.json"
    file.write_text(str(tokenizer.to_str()))
    size = tokenizer.get_vocab_size() - spare
    return Checkpoint(
        spec=family,
        name=family,
        config={**_SIZES, "vocab_size": size},
        generation_config={"eos_token_id": [tokenizer.token_to_id(token) for token in ends]},
        tensors=_Shapes(size),
        vocabulary=[],
        tokenizer_file=file,
        licence=None,
        revision=None,
        sha256={},
        tokenizer_config={"bos_token": control[0], "eos_token": ends[0], "add_bos_token": adds_bos},
        chat_template=template,
    )


def coder_of(folder: Path, family: str, template: str | None, **more: Any) -> Coder:
    options = {name: more.pop(name) for name in ("variables", "date") if name in more}
    checkpoint = checkpoint_of(folder, family, template, **more)
    return Coder(checkpoint, language_model(checkpoint).spec, **options)


def learned_texts(coder: Coder, example: Example) -> list[str]:
    """The text of each run of learned tokens."""
    runs: list[list[int]] = []
    before = False
    for token, learned in zip(example.ids.tolist(), example.learned.tolist(), strict=True):
        if learned and not before:
            runs.append([])
        if learned:
            runs[-1].append(token)
        before = learned
    return [coder.decode(run) for run in runs]


def write_lines(file: Path, lines: Sequence[Mapping[str, Any] | str]) -> Path:
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


@cache
def _byte_level(control: tuple[str, ...], cut: str) -> Any:
    """Bytes and a few merges, one of them over a space, cut as the family of that name cuts."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: index for index, token in enumerate([*control, *letters, "th", "Ġa", "ĊĊ"])}
    merges = [("t", "h"), ("Ġ", "a"), ("Ċ", "Ċ")]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    patterns, _ = PUBLISHED[cut]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns or ()),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=patterns is None),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


@cache
def _spaced(control: tuple[str, ...]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    space = "\N{LOWER ONE EIGHTH BLOCK}"
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [space, *(chr(code) for code in range(33, 127))]
    ids = {token: index for index, token in enumerate([*control, *pieces, *letters, space + "a"])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[(space, "a")], byte_fallback=True, unk_token=control[0]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
