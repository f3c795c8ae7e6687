"""What a bundle costs on any machine: bytes, multiplications and cache, counted from the model's shape.

Counted, not timed: the figures are the same wherever the bundle was made.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear, Linear
from sottovoce_compiler.lowerings.onnx.mel import N_FFT, SPECTRUM_BINS
from sottovoce_compiler.lowerings.onnx.recipe import Recipe

_FLOAT_BYTES = 4


def whisper_cost(spec: WhisperSpec, recipe: Recipe, files: Mapping[str, bytes | Path]) -> dict[str, Any]:
    """What `counted` counts, and the precision by part."""
    precision = {part: describe(getattr(recipe, part)) for part in ("encoder", "decoder", "head")}
    return {**counted(spec, files), "precision": precision}


def counted(spec: WhisperSpec, files: Mapping[str, bytes | Path]) -> dict[str, Any]:
    """Sizes of model files in bytes, multiply-adds for the longest window and for a token, and cache."""
    attention = 4 * spec.width**2
    encoder_weights = spec.encoder_layers * (attention + 2 * spec.width * spec.encoder_ffn)
    # The stem: its first convolution runs twice a frame, as does the spectrum before it.
    stem = 3 * spec.width * (2 * spec.n_mels + spec.width)
    spectrum = 2 * SPECTRUM_BINS * (2 * N_FFT + spec.n_mels)
    cross = spec.decoder_layers * 2 * spec.width**2
    decoder_weights = spec.decoder_layers * (attention + 2 * spec.width**2 + 2 * spec.width * spec.decoder_ffn)
    frames = spec.n_audio_ctx
    scores = 2 * spec.encoder_layers * frames**2 * spec.width
    per_frame = 2 * spec.decoder_layers * spec.width
    return {
        "file_bytes": {name: _size(content) for name, content in sorted(files.items())},
        "encoder_macs_30s": frames * (spectrum + stem + encoder_weights + cross) + scores,
        "decoder_macs_per_token": decoder_weights + spec.vocab_size * spec.width + frames * per_frame,
        "cross_cache_bytes_30s": frames * per_frame * _FLOAT_BYTES,
        "self_cache_bytes_per_token": per_frame * _FLOAT_BYTES,
    }


def describe(linear: Linear) -> str:
    """One line about how a part's weights are kept and multiplied."""
    match linear:
        case BlockLinear(bits, block):
            return f"int{bits} weights in blocks of {block}, int8 activations"
        case DynamicInt8Linear(levels):
            return f"int8 weights a channel ({levels} levels), uint8 activations a tensor"
        case FloatLinear(half):
            return "float16 weights, float32 products" if half else "float32"
    raise TypeError(f"no description of {type(linear).__name__}")


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)
