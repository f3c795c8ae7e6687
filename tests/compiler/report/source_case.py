"""A random Whisper as a checkpoint in memory, with windows of two seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sottovoce_compiler.sources import Array, Checkpoint

WINDOW_SECONDS = 2
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|ja|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
TIMESTAMPS = 50 * WINDOW_SECONDS + 1
VOCABULARY: tuple[bytes | str, ...] = (*(bytes([byte]) for byte in range(256)), *SPECIAL)
CONFIG: Mapping[str, Any] = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 80,
    "max_source_positions": 50 * WINDOW_SECONDS,
    "max_target_positions": 32,
    "vocab_size": len(VOCABULARY) + TIMESTAMPS,
    "pad_token_id": 256,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "decoder_start_token_id": 257,
}


@dataclass(frozen=True)
class Memory:
    """Tensors in memory."""

    arrays: Mapping[str, Array]

    def names(self) -> list[str]:
        return sorted(self.arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def load(self, name: str) -> Array:
        return self.arrays[name].copy()


def random_arrays(seed: int = 0) -> dict[str, Array]:
    """A state dict as Hugging Face publishes one: float16, without the tied head."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    state = WhisperForConditionalGeneration(WhisperConfig(**CONFIG, init_std=0.3)).state_dict()
    return {name: tensor.half().numpy() for name, tensor in state.items() if name != "proj_out.weight"}


def checkpoint(arrays: Mapping[str, Array] | None = None, *, multilingual: bool = True, sha: str = "0") -> Checkpoint:
    return Checkpoint(
        spec="tiny",
        name="tiny",
        config=CONFIG,
        generation_config={"is_multilingual": multilingual},
        tensors=Memory(random_arrays() if arrays is None else arrays),
        vocabulary=VOCABULARY,
        tokenizer_file=None,
        licence=None,
        revision=None,
        sha256={"model.safetensors": sha},
    )


def noise(seconds: float, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Samples at 16 kHz."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * 16_000)).astype(np.float32)
