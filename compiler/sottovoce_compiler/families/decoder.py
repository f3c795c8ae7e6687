"""What the configs of decoder-only models have in common: sizes, and what would change the computation if set."""

from dataclasses import replace

from sottovoce_compiler.families.causal import CausalSpec, Rope
from sottovoce_compiler.families.config import Reader
from sottovoce_compiler.families.rope import read_rope, rope_parameters

# Of other architectures or of packed weights: a config that sets one is not the model that its model_type says.
_MEANS_ANOTHER = (
    *("quantization_config", "num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size"),
    *("attention_bias", "mlp_bias", "is_encoder_decoder", "use_bidirectional_attention", "attn_logit_softcapping"),
    *("logit_scale", "embedding_multiplier", "residual_multiplier", "rope_interleaved", "use_qk_norm"),
)


def decoder_spec(
    read: Reader, family: str, *, theta: float, tied: bool = False, activation: str = "silu"
) -> CausalSpec:
    """The spec of a config like Llama's; `theta`, `tied` and `activation` are what the family has where it is silent.

    Raises UnsupportedModelError naming a key that is missing, out of range or not supported.
    """
    read.absent(*_MEANS_ANOTHER)
    key = "hidden_activation" if "hidden_activation" in read.config else "hidden_act"
    read.only(key, activation)
    width, heads = read.positive("hidden_size"), read.positive("num_attention_heads")
    if "head_dim" not in read.config or read.config["head_dim"] is None:
        read.divides("num_attention_heads", "hidden_size", width)
    head_width = read.positive("head_dim", max(1, width // heads))
    context = read.positive("max_position_embeddings")
    return CausalSpec(
        family=family,
        layers=read.positive("num_hidden_layers"),
        width=width,
        ffn=read.positive("intermediate_size"),
        heads=heads,
        kv_heads=read.divides("num_key_value_heads", "num_attention_heads", heads, heads),
        head_width=head_width,
        vocab_size=read.positive("vocab_size"),
        context=context,
        norm_eps=read.number("rms_norm_eps", 1e-6),
        rope=_rope(read, theta, head_width, context),
        tied=read.flag("tie_word_embeddings", tied),
        activation="gelu_tanh" if activation == "gelu_pytorch_tanh" else "silu",
        attention_scale=head_width**-0.5,
    )


def _rope(read: Reader, theta: float, head_width: int, context: int) -> Rope:
    parameters = read.config.get("rope_parameters")
    if isinstance(parameters, dict) and "full_attention" in parameters:  # one set for each kind of layer
        return Rope(head_width, theta)  # the family reads them
    return read_rope(rope_parameters(read, theta), head_width, context)


def with_window(spec: CausalSpec, sliding: tuple[bool, ...], window: int | None) -> CausalSpec:
    """`spec` with the layers that slide; a window that no text fills is none."""
    if window is None or window >= spec.context or not any(sliding):
        return spec
    return replace(spec, sliding_window=window, sliding_layers=sliding)


def sliding_pattern(read: Reader, layers: int) -> tuple[bool, ...]:
    """Which layers slide by `layer_types`; without it those from `max_window_layers` on (Qwen's rule)."""
    types = read.layer_types(layers)
    if types is not None:
        return tuple(one == "sliding_attention" for one in types)
    first = read.positive("max_window_layers", 28)
    return tuple(layer >= first for layer in range(layers))
