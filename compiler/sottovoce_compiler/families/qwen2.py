"""Qwen2 and Qwen2.5: Llama with biases on q, k and v."""

from dataclasses import replace

from sottovoce_compiler.families.causal import CausalModel, CausalSpec
from sottovoce_compiler.families.causal_tensors import Layout, causal_model
from sottovoce_compiler.families.config import Reader
from sottovoce_compiler.families.decoder import decoder_spec, sliding_pattern, with_window
from sottovoce_compiler.sources.checkpoint import Checkpoint


def model(checkpoint: Checkpoint) -> CausalModel:
    """The model; UnsupportedModelError names a config key or a tensor that does not fit."""
    read = Reader(checkpoint.config, checkpoint.name)
    spec = windowed(decoder_spec(read, "qwen2", theta=10_000.0), read)
    return causal_model(checkpoint, replace(spec, qkv_bias=True, pooling=checkpoint.pooling), Layout())


def windowed(spec: CausalSpec, read: Reader) -> CausalSpec:
    """`spec` with Qwen's sliding windows, where `use_sliding_window` turns them on."""
    if not read.flag("use_sliding_window"):
        read.without_sliding_layers(spec.layers)
        return spec
    return with_window(spec, sliding_pattern(read, spec.layers), read.positive("sliding_window", 4096))
