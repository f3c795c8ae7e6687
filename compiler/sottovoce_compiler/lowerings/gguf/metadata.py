"""What a GGUF file says of itself: name, licence and source, sizes, rotation, how to sample.

Knows the keys (gguf's constants), and nothing of tensors and tokens.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, PoolingType, RopeScalingType

from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.lowerings.gguf.model import Graph
from sottovoce_compiler.sources.checkpoint import Checkpoint

_POOLING = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "last": PoolingType.LAST}
# llama.cpp strips space after every special token of a model with one of these in its name, and fails to load one whose
# vocabulary is not Phi-3's.
_PHI_IN_NAME = ("phi-3", "phi3")


def add_general(writer: GGUFWriter, checkpoint: Checkpoint, file_type: int, strips_after_special: bool) -> None:
    """`general.*`: `file_type` is llama.cpp's number for the mix of types."""
    writer.add_type("model")
    writer.add_name(general_name(checkpoint.name, strips_after_special))
    if checkpoint.licence:
        writer.add_license(checkpoint.licence)
    # A folder's path says nothing to others, and may say too much.
    if not Path(checkpoint.spec).expanduser().exists():
        writer.add_string("general.source", checkpoint.spec)
    if checkpoint.revision:
        writer.add_string("general.source.revision", checkpoint.revision)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    _add_sampling(writer, checkpoint.generation_config)


def general_name(name: str, strips_after_special: bool) -> str:
    """The name, spelled so that llama.cpp strips after special tokens exactly where the source's tokenizer does."""
    marked = any(mark in name.lower() for mark in _PHI_IN_NAME)
    if strips_after_special and not marked:
        return f"{name} (phi-3)"
    if marked and not strips_after_special:
        for mark in _PHI_IN_NAME:
            while (at := name.lower().find(mark)) >= 0:
                name = f"{name[: at + 3]} {name[at + len(mark) - 1 :]}"
    return name


def add_sizes(writer: GGUFWriter, spec: CausalSpec, graph: Graph) -> None:
    """Sizes, rotation and windows of the architecture."""
    writer.add_vocab_size(spec.vocab_size)
    writer.add_context_length(graph.context)
    writer.add_embedding_length(spec.width)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_width)
    writer.add_value_length(spec.head_width)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    _add_rope(writer, spec)
    if graph.architecture == "gemma3" and spec.sliding_window is not None:
        writer.add_sliding_window(spec.sliding_window)
        if graph.sliding_pattern is not None:
            writer.add_sliding_window_pattern(graph.sliding_pattern)
        if spec.local_rope is not None:
            writer.add_rope_freq_base_swa(spec.local_rope.base)
    if spec.final_softcap is not None:
        writer.add_final_logit_softcapping(spec.final_softcap)
    if spec.pooling is not None:
        writer.add_pooling_type(_POOLING[spec.pooling])


def _add_rope(writer: GGUFWriter, spec: CausalSpec) -> None:
    rope = spec.rope
    writer.add_rope_dimension_count(rope.width)
    writer.add_rope_freq_base(rope.base)
    if rope.linear_factor != 1:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope.linear_factor)
    if rope.short_factors is not None and rope.original_context is not None:
        writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(rope.original_context)
        writer.add_rope_scaling_attn_factors(rope.attention_factor)


def _add_sampling(writer: GGUFWriter, generation: Mapping[str, Any]) -> None:
    """How the publisher samples, where generation_config.json says so."""
    if generation.get("do_sample") is False:
        writer.add_sampling_temp(0.0)
        return
    for key, add in (
        ("temperature", writer.add_sampling_temp),
        ("top_p", writer.add_sampling_top_p),
        ("min_p", writer.add_sampling_min_p),
        ("repetition_penalty", writer.add_sampling_penalty_repeat),
    ):
        value = generation.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            add(float(value))
    top_k = generation.get("top_k")
    if isinstance(top_k, int) and not isinstance(top_k, bool):
        writer.add_sampling_top_k(top_k)
