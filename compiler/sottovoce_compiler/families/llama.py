"""Llama and Mistral: SmolLM2, Llama 2 and 3.x with its scaled rotation, Mistral and what was fine-tuned from them."""

from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.families.causal_tensors import Layout, causal_model
from sottovoce_compiler.families.config import Reader
from sottovoce_compiler.families.decoder import decoder_spec, with_window
from sottovoce_compiler.sources.checkpoint import Checkpoint

_MISTRAL_WINDOW = 4096  # what a config of Mistral means that does not mention a window; null means none


def model(checkpoint: Checkpoint) -> CausalModel:
    """The model; UnsupportedModelError names a config key or a tensor that does not fit."""
    read = Reader(checkpoint.config, checkpoint.name)
    family = str(checkpoint.config["model_type"])
    spec = decoder_spec(read, family, theta=10_000.0)
    read.without_sliding_layers(spec.layers)
    if family == "mistral":
        null = checkpoint.config.get("sliding_window", _MISTRAL_WINDOW) is None
        window = None if null else read.positive("sliding_window", _MISTRAL_WINDOW)
        spec = with_window(spec, (True,) * spec.layers, window)
    else:
        read.absent("sliding_window")
    return causal_model(checkpoint, spec, Layout())
