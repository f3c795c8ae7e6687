"""Gemma 3: norms before and after each part, stored as what is added to one; layers that slide between layers that see
all; a scaled embedding. Of the multimodal ones the language model is compiled."""

from collections.abc import Mapping
from dataclasses import replace

from sottovoce_compiler.families.causal import CausalModel, CausalSpec
from sottovoce_compiler.families.causal_tensors import GEMMA_NAMES, Layout, causal_model
from sottovoce_compiler.families.config import Reader
from sottovoce_compiler.families.decoder import decoder_spec
from sottovoce_compiler.families.rope import read_rope
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_compiler.sources.files import say

_PATTERN = 6  # every sixth layer sees all, where nothing else is said
_GLOBAL_BASE, _LOCAL_BASE = 1_000_000.0, 10_000.0
# Values that Gemma's published configs leave to the code that reads them.
_SILENT = {
    **{"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208},
    **{"max_position_embeddings": 131_072, "query_pre_attn_scalar": 256, "sliding_window": 4096},
}
_LAYOUT = Layout(
    names=GEMMA_NAMES,
    prefixes=("model.", "language_model.model.", "model.language_model."),
    heads=("lm_head.weight", "language_model.lm_head.weight"),
    left_out=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
    norms_plus_one=True,
)


def model(checkpoint: Checkpoint) -> CausalModel:
    """The model; UnsupportedModelError names a config key or a tensor that does not fit."""
    read = Reader(checkpoint.config, checkpoint.name)
    if checkpoint.config["model_type"] == "gemma3":
        text = checkpoint.config.get("text_config")
        if not isinstance(text, Mapping):
            raise read.refuse("text_config", "an object is needed")
        say(f"{checkpoint.name}: the vision weights are left out; the compiled model reads text only")
        tied = {"tie_word_embeddings": checkpoint.config.get("tie_word_embeddings", True)}
        read = read.part("text_config", {**_SILENT, **tied, **text})
    else:
        read = Reader({**_SILENT, **checkpoint.config}, checkpoint.name)
    return causal_model(checkpoint, _spec(read), _LAYOUT)


def _spec(read: Reader) -> CausalSpec:
    old = {key: value for key, value in read.config.items() if key not in ("rope_scaling", "rope_theta")}
    spec = decoder_spec(
        replace(read, config=old), "gemma3", theta=_GLOBAL_BASE, tied=True, activation="gelu_pytorch_tanh"
    )
    whole, local = _ropes(read)
    cap = read.config.get("final_logit_softcapping")
    spec = replace(
        spec,
        rope=read_rope(whole, spec.head_width, spec.context),
        attention_scale=read.number("query_pre_attn_scalar") ** -0.5,
        embedding_scale=spec.width**0.5,
        qk_norm=True,
        post_norms=True,
        final_softcap=None if cap is None else read.number("final_logit_softcapping"),
    )
    sliding = _sliding(read, spec.layers)
    if not any(sliding):
        return spec
    # The window stays where no text fills it: with it goes the base of the sliding layers.
    return replace(
        spec,
        sliding_window=read.positive("sliding_window"),
        sliding_layers=sliding,
        local_rope=read_rope(local, spec.head_width, spec.context),
    )


def _ropes(read: Reader) -> tuple[Reader, Reader]:
    """Parameters of the layers that see all and of those that slide."""
    new, old = read.config.get("rope_parameters"), read.config.get("rope_scaling")
    if new is None:
        whole = {"rope_theta": read.config.get("rope_theta", _GLOBAL_BASE), **(old or {})}
        local = {"rope_theta": read.config.get("rope_local_base_freq", _LOCAL_BASE)}
        return read.part("rope_scaling", whole), read.part("rope_local_base_freq", local)
    parts = ("full_attention", "sliding_attention")
    if not isinstance(new, Mapping) or not all(isinstance(new.get(part) or {}, Mapping) for part in parts):
        raise read.refuse("rope_parameters", f"an object with {' and '.join(parts)} is needed")
    whole = {"rope_theta": _GLOBAL_BASE, **(new.get("full_attention") or {})}
    local = {"rope_theta": _LOCAL_BASE, **(new.get("sliding_attention") or {})}
    return read.part("rope_parameters", whole), read.part("rope_parameters", local)


def _sliding(read: Reader, layers: int) -> tuple[bool, ...]:
    types = read.layer_types(layers)
    if types is not None:
        return tuple(one == "sliding_attention" for one in types)
    pattern = read.positive("sliding_window_pattern", _PATTERN)
    return tuple((layer + 1) % pattern != 0 for layer in range(layers))
