"""Phi-3 and Phi-4-mini: Llama whose q, k and v lie in one tensor, gate and up in another; rotation may be partial and
scaled by LongRoPE."""

from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.families.causal_tensors import PHI_NAMES, Layout, causal_model
from sottovoce_compiler.families.config import Reader
from sottovoce_compiler.families.decoder import decoder_spec, with_window
from sottovoce_compiler.sources.checkpoint import Checkpoint


def model(checkpoint: Checkpoint) -> CausalModel:
    """The model; UnsupportedModelError names a config key or a tensor that does not fit."""
    read = Reader(checkpoint.config, checkpoint.name)
    spec = decoder_spec(read, "phi3", theta=10_000.0)
    read.without_sliding_layers(spec.layers)
    if checkpoint.config.get("sliding_window") is not None:
        spec = with_window(spec, (True,) * spec.layers, read.positive("sliding_window"))
    return causal_model(checkpoint, spec, Layout(names=PHI_NAMES, fused=True))
