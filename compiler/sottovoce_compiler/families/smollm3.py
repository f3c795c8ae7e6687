"""SmolLM3: Llama in which every few layers see no positions."""

from dataclasses import replace

from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.families.causal_tensors import Layout, causal_model
from sottovoce_compiler.families.config import Reader
from sottovoce_compiler.families.decoder import decoder_spec
from sottovoce_compiler.sources.checkpoint import Checkpoint


def model(checkpoint: Checkpoint) -> CausalModel:
    """The model; UnsupportedModelError names a config key or a tensor that does not fit."""
    read = Reader(checkpoint.config, checkpoint.name)
    spec = decoder_spec(read, "smollm3", theta=2_000_000.0, tied=True)
    read.without_sliding_layers(spec.layers)
    read.absent("use_sliding_window")  # published ones do not, and llama.cpp cannot
    return causal_model(checkpoint, replace(spec, rope_layers=_turning(read, spec.layers)), Layout())


def _turning(read: Reader, layers: int) -> tuple[bool, ...]:
    """For each layer whether it has positions: `no_rope_layers` has 1 where it does, in spite of its name."""
    given = read.config.get("no_rope_layers")
    if given is None:
        interval = read.positive("no_rope_layer_interval", 4)
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    if not isinstance(given, list) or len(given) < layers or any(one not in (0, 1) for one in given):
        raise read.refuse("no_rope_layers", f"a list of {layers} zeros and ones is needed")
    return tuple(bool(one) for one in given[:layers])
