"""The Whisper family: everything that follows from a checkpoint's config and vocabulary.

Covers tiny to large-v3, turbo, distil-* and fine-tunes of them: any number of layers, 80 or 128 mels, English-only or
multilingual. Knows nothing of ONNX, bundles or devices.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.families.config import Reader
from sottovoce_compiler.families.whisper_heads import PUBLISHED, Heads, later_half
from sottovoce_compiler.sources.checkpoint import Checkpoint

SMALLEST_MULTILINGUAL = 51865  # tokens: the English-only vocabulary has one less
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
# Marks that transcripts of the web use for what is not speech (openai/whisper suppresses the same by default).
_NON_SPEECH = [
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』♩♪♫♬♭♮♯',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}"),
    *("♪♪", "♪♪♪"),
]
_NOTE_PREFIX = b"\xe2\x99"  # the bytes that begin every musical sign above
_AFTER_SPACE_ONLY = (" -", " '")  # suppressed as the start of a word, wanted inside one


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the tokens that steer decoding; `languages` pairs each code with its id, in the order of the
    vocabulary."""

    end: int
    start: int
    translate: int | None
    transcribe: int | None
    start_of_previous: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    languages: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class WhisperSpec:
    """The shape of one Whisper and the tokens that steer it."""

    n_mels: int
    n_audio_ctx: int
    n_text_ctx: int
    width: int
    vocab_size: int
    encoder_layers: int
    encoder_heads: int
    encoder_ffn: int
    decoder_layers: int
    decoder_heads: int
    decoder_ffn: int
    alignment_heads: Heads
    alignment_heads_known: bool
    multilingual: bool
    tokens: SpecialTokens
    suppress: tuple[int, ...]
    suppress_at_begin: tuple[int, ...]

    @property
    def row_unit(self) -> int:
        """What the length of every weight matrix's rows is a multiple of."""
        return math.gcd(self.width, self.encoder_ffn, self.decoder_ffn)

    @property
    def encoder_head_width(self) -> int:
        return self.width // self.encoder_heads

    @property
    def decoder_head_width(self) -> int:
        return self.width // self.decoder_heads

    def stream_json(self) -> dict[str, float]:
        """Settings of a stream that go with the model, not with the machine; as measured (docs/streaming.md).

        tiny.en's attention places the end of a word 0.1 s late, base's 0.1 s early: the one need not wait as long as
        the other. What was not measured has the runtime's defaults.
        """
        return {"hold_back": 0.2} if self.encoder_layers == 4 and not self.multilingual else {}

    def audio_json(self) -> dict[str, Any]:
        """The manifest's `audio`: what the device must know of the samples."""
        return {
            "sample_rate": 16_000,
            "n_mels": self.n_mels,
            "frame_samples": 320,
            "max_frames": self.n_audio_ctx,
        }

    def model_json(self) -> dict[str, Any]:
        """The manifest's `model`: what the device must know to size caches and read the alignment."""
        return {
            "decoder_layers": self.decoder_layers,
            "decoder_heads": self.decoder_heads,
            "head_width": self.decoder_head_width,
            "text_context": self.n_text_ctx,
            "vocab_size": self.vocab_size,
            "alignment_heads": len(self.alignment_heads),
        }

    def generation_json(self) -> dict[str, Any]:
        """The manifest's `generation`: the tokens that steer decoding."""
        tokens = asdict(self.tokens)
        tokens["languages"] = dict(self.tokens.languages)
        return {
            "tokens": tokens,
            "multilingual": self.multilingual,
            "suppress": list(self.suppress),
            "suppress_at_begin": list(self.suppress_at_begin),
        }


def whisper_spec(checkpoint: Checkpoint) -> WhisperSpec:
    """The spec of a checkpoint; UnsupportedModelError names a config key that is missing or contradicts another."""
    config = checkpoint.config
    read = Reader(config, checkpoint.name)
    vocab_size = read.positive("vocab_size")
    read.only("activation_function", "gelu")
    read.only("scale_embedding", False)
    read.only("tie_word_embeddings", True)
    multilingual = bool(checkpoint.generation_config.get("is_multilingual", vocab_size >= SMALLEST_MULTILINGUAL))
    layers, heads = read.positive("decoder_layers"), read.positive("decoder_attention_heads")
    known = _alignment_heads(checkpoint, layers, heads, vocab_size)
    width = read.positive("d_model")
    read.divides("encoder_attention_heads", "d_model", width)
    read.divides("decoder_attention_heads", "d_model", width)
    tokens = _special_tokens(checkpoint, multilingual)
    if tokens.timestamp_begin >= vocab_size:
        raise UnsupportedModelError(
            f"{checkpoint.name}: the first timestamp is token {tokens.timestamp_begin}, but config.json has "
            f"vocab_size = {vocab_size}; the tokenizer belongs to another model"
        )
    return WhisperSpec(
        n_mels=read.positive("num_mel_bins"),
        n_audio_ctx=read.positive("max_source_positions"),
        n_text_ctx=read.positive("max_target_positions"),
        width=width,
        vocab_size=vocab_size,
        encoder_layers=read.positive("encoder_layers"),
        encoder_heads=read.positive("encoder_attention_heads"),
        encoder_ffn=read.positive("encoder_ffn_dim"),
        decoder_layers=layers,
        decoder_heads=heads,
        decoder_ffn=read.positive("decoder_ffn_dim"),
        alignment_heads=known or later_half(layers, heads),
        alignment_heads_known=known is not None,
        multilingual=multilingual,
        tokens=tokens,
        suppress=tuple(_suppressed(checkpoint, "suppress_tokens", non_speech_tokens(checkpoint))),
        suppress_at_begin=tuple(_suppressed(checkpoint, "begin_suppress_tokens", _blank(checkpoint, tokens))),
    )


def _alignment_heads(checkpoint: Checkpoint, layers: int, heads: int, vocab_size: int) -> Heads | None:
    """Heads published with the checkpoint or for its shape; None where neither fits.

    Distilled checkpoints were published with their teacher's heads, in layers they do not have: those are not used.
    """
    given = checkpoint.generation_config.get("alignment_heads")
    if isinstance(given, list) and given:
        try:
            pairs = tuple(sorted({(int(layer), int(head)) for layer, head in given}))
        except (TypeError, ValueError):
            raise UnsupportedModelError(
                f"{checkpoint.name}: generation_config.json has alignment_heads = {given!r:.80}; pairs of layer and "
                "head are needed"
            ) from None
        if all(0 <= layer < layers and 0 <= head < heads for layer, head in pairs):
            return pairs
    return PUBLISHED.get((layers, heads, vocab_size))


def _special_tokens(checkpoint: Checkpoint, multilingual: bool) -> SpecialTokens:
    ids: dict[str, int] = {}
    for index, token in enumerate(checkpoint.vocabulary):
        if isinstance(token, str):
            ids.setdefault(token, index)

    def one(*names: str) -> int:
        for name in names:
            if name in ids:
                return ids[name]
        raise UnsupportedModelError(f"{checkpoint.name}: the vocabulary has no {names[0]} token; is it Whisper's?")

    start, end_of_languages = one("<|startoftranscript|>"), one("<|translate|>")
    languages = [
        (found[1], index)
        for token, index in ids.items()
        if (found := _LANGUAGE.fullmatch(token)) and start < index < end_of_languages
    ]
    no_timestamps = one("<|notimestamps|>")
    return SpecialTokens(
        end=one("<|endoftext|>"),
        start=start,
        translate=end_of_languages if multilingual else None,
        transcribe=one("<|transcribe|>") if multilingual else None,
        start_of_previous=one("<|startofprev|>"),
        no_speech=one("<|nospeech|>", "<|nocaptions|>"),
        no_timestamps=no_timestamps,
        timestamp_begin=no_timestamps + 1,
        languages=tuple(sorted(languages, key=lambda pair: pair[1])) if multilingual else (),
    )


def non_speech_tokens(checkpoint: Checkpoint) -> list[int]:
    """Ids of ordinary tokens that are a mark of non-speech, alone or after a space."""
    marks = {mark.encode() for mark in _NON_SPEECH} | {_NOTE_PREFIX}
    marks |= {b" " + mark for mark in marks} | {text.encode() for text in _AFTER_SPACE_ONLY}
    return [i for i, token in enumerate(checkpoint.vocabulary) if isinstance(token, bytes) and token in marks]


def _blank(checkpoint: Checkpoint, tokens: SpecialTokens) -> list[int]:
    """What no transcript begins with: a lone space, and the end."""
    spaces = [i for i, token in enumerate(checkpoint.vocabulary) if token == b" "]
    return [*spaces, tokens.end]


def _suppressed(checkpoint: Checkpoint, key: str, default: list[int]) -> Iterable[int]:
    given = checkpoint.generation_config.get(key, checkpoint.config.get(key))  # older checkpoints have it there
    ids = given if isinstance(given, list) and given else default
    return sorted({int(i) for i in ids if 0 <= int(i) < int(checkpoint.config["vocab_size"])})
