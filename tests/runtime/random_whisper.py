"""A random multilingual Whisper in memory: the real vocabulary's shape and context, two narrow layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, product
from string import ascii_lowercase
from typing import Any

import numpy as np

from sottovoce_compiler.sources import Checkpoint

WIDTH, LAYERS, FFN, MELS, FRAMES, CONTEXT = 64, 2, 128, 80, 1500, 448
ORDINARY, LANGUAGES = 50257, 99
CODES = ["en", "de", "zh", *(code for a, b in product("qxy", ascii_lowercase) if (code := a + b) not in ("yi", "yo"))]
CODES += list(islice(("k" + a + b for a, b in product("qxyz", ascii_lowercase)), LANGUAGES - len(CODES)))
VOCABULARY: tuple[bytes | str, ...] = (
    *(bytes([value]) for value in range(256)),
    *(f" w{number}".encode() for number in range(ORDINARY - 256)),
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in CODES[:LANGUAGES]),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
    *(f"<|{step / 50:.2f}|>" for step in range(1501)),
)
CONFIG: Mapping[str, Any] = {
    "model_type": "whisper",
    "d_model": WIDTH,
    "vocab_size": len(VOCABULARY),
    "num_mel_bins": MELS,
    "max_source_positions": FRAMES,
    "max_target_positions": CONTEXT,
    **{f"{side}_layers": LAYERS for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": FFN for side in ("encoder", "decoder")},
}


@dataclass(frozen=True)
class Arrays:
    """Tensors in memory."""

    arrays: Mapping[str, np.ndarray]

    def names(self) -> list[str]:
        return sorted(self.arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def load(self, name: str) -> np.ndarray:
        return self.arrays[name].copy()


def random_checkpoint(seed: int = 0) -> Checkpoint:
    """Weights wide enough that audio, past and position each change the logits."""
    tensors = Arrays(_arrays(np.random.default_rng(seed)))
    return Checkpoint("random", "random", CONFIG, {}, tensors, VOCABULARY, None, "MIT", None, {})


def _arrays(random: np.random.Generator) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, spread: float | None = None) -> None:
        scale = 1.2 / np.sqrt(np.prod(shape[1:])) if spread is None else spread
        arrays[f"model.{name}"] = random.normal(0, scale, shape).astype(np.float32)

    def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> None:
        add(f"{name}.weight", rows, columns)
        if bias:
            add(f"{name}.bias", rows, spread=0.1)

    def norm(name: str) -> None:
        add(f"{name}.weight", WIDTH, spread=0.1)
        arrays[f"model.{name}.weight"] += 1
        add(f"{name}.bias", WIDTH, spread=0.1)

    def attention(name: str) -> None:
        for part in ("q", "k", "v", "out"):
            linear(f"{name}.{part}_proj", WIDTH, WIDTH, bias=part != "k")
        norm(f"{name}_layer_norm")

    for conv, channels in (("conv1", MELS), ("conv2", WIDTH)):
        add(f"encoder.{conv}.weight", WIDTH, channels, 3)
        add(f"encoder.{conv}.bias", WIDTH, spread=0.1)
    add("encoder.embed_positions.weight", FRAMES, WIDTH, spread=0.3)
    add("decoder.embed_positions.weight", CONTEXT, WIDTH, spread=0.3)
    add("decoder.embed_tokens.weight", len(VOCABULARY), WIDTH, spread=0.3)
    for side in ("encoder", "decoder"):
        for i in range(LAYERS):
            layer = f"{side}.layers.{i}"
            attention(f"{layer}.self_attn")
            if side == "decoder":
                attention(f"{layer}.encoder_attn")
            linear(f"{layer}.fc1", FFN, WIDTH)
            linear(f"{layer}.fc2", WIDTH, FFN)
            norm(f"{layer}.final_layer_norm")
        norm(f"{side}.layer_norm")
    return arrays
