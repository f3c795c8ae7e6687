"""Qwen3: Llama with a norm over each head of q and k; heads need not share out the width."""

from dataclasses import replace

from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.families.causal_tensors import Layout, causal_model
from sottovoce_compiler.families.config import Reader
from sottovoce_compiler.families.decoder import decoder_spec
from sottovoce_compiler.families.qwen2 import windowed
from sottovoce_compiler.sources.checkpoint import Checkpoint

_HEAD_WIDTH = 128  # of a config that does not say


def model(checkpoint: Checkpoint) -> CausalModel:
    """The model; UnsupportedModelError names a config key or a tensor that does not fit."""
    read = Reader({"head_dim": _HEAD_WIDTH, **checkpoint.config}, checkpoint.name)
    spec = windowed(decoder_spec(read, "qwen3", theta=10_000.0), read)
    return causal_model(checkpoint, replace(spec, qk_norm=True, pooling=checkpoint.pooling), Layout())
