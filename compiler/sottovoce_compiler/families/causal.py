"""What the decoder-only families share: one description of a language model, from which every lowering is made.

A family's module turns a checkpoint into a `CausalSpec` and says where each weight lies; lowerings know only this
description and the names of `LAYER_ROLES` and `MODEL_ROLES`. Weights are asked for in one convention, whatever the
checkpoint's: q, k and v apart, gate and up apart, rotary pairs as Hugging Face has them (value i with value
i + rotary_width / 2), norms as the factor that is multiplied (Gemma's plus one is done).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

# (vocabulary, width), (width,), (vocabulary, width); "head" is absent where it is tied to "embed".
MODEL_ROLES = ("embed", "final_norm", "head")
# q (heads * head_width, width), k and v (kv_heads * head_width, width), o (width, heads * head_width),
# gate and up (ffn, width), down (width, ffn); norms and biases are vectors. The second line where the spec says so.
LAYER_ROLES = (
    *("attention_norm", "q", "k", "v", "o", "ffn_norm", "gate", "up", "down"),
    *("q_bias", "k_bias", "v_bias", "q_norm", "k_norm", "post_attention_norm", "post_ffn_norm"),
)


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding: angle of pair i at position p is p * base^(-2i / width) / factors[i].

    `width` values of each head turn (all of them, but for partial rotary). `factors` (width / 2,) are Llama 3's
    scaling or Phi-3's "longrope" (`short_factors` up to `original_context` positions, `factors` beyond it); 1 where
    None. `attention_factor` multiplies cosine and sine.
    """

    width: int
    base: float
    factors: tuple[float, ...] | None = None
    short_factors: tuple[float, ...] | None = None
    original_context: int | None = None
    attention_factor: float = 1.0
    linear_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class CausalSpec:
    """The shape of one decoder-only language model with gated feed-forward layers and RMS norms."""

    family: str  # the key of FAMILIES
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_width: int
    vocab_size: int
    context: int  # positions it was trained for
    norm_eps: float
    rope: Rope
    tied: bool
    activation: Literal["silu", "gelu_tanh"] = "silu"
    attention_scale: float = 0.0  # what q . k is multiplied by; filled in by the family
    embedding_scale: float = 1.0  # sqrt(width) for Gemma
    qkv_bias: bool = False
    qk_norm: bool = False  # RMS norm over each head of q and k, before rotation
    post_norms: bool = False  # norms after attention and feed-forward, before each is added
    sliding_window: int | None = None  # positions that a layer of `sliding_layers` sees, itself included
    sliding_layers: tuple[bool, ...] = ()
    local_rope: Rope | None = None  # of the sliding layers, where it differs
    rope_layers: tuple[bool, ...] = ()  # False: a layer without positions (SmolLM3); empty: all have them
    final_softcap: float | None = None
    pooling: Literal["mean", "cls", "last"] | None = None  # a model made for embeddings

    def layer_roles(self) -> tuple[str, ...]:
        """The roles of `LAYER_ROLES` that every layer of this model has."""
        wanted = list(LAYER_ROLES[:9])
        wanted += ["q_bias", "k_bias", "v_bias"] if self.qkv_bias else []
        wanted += ["q_norm", "k_norm"] if self.qk_norm else []
        wanted += ["post_attention_norm", "post_ffn_norm"] if self.post_norms else []
        return tuple(wanted)

    def slides(self, layer: int) -> bool:
        return bool(self.sliding_layers) and self.sliding_layers[layer]

    def turns(self, layer: int) -> bool:
        return not self.rope_layers or self.rope_layers[layer]

    def rope_of(self, layer: int) -> Rope:
        return self.local_rope if self.local_rope is not None and self.slides(layer) else self.rope


def role_shape(spec: CausalSpec, role: str) -> tuple[int, ...]:
    """The shape in which `CausalModel.load` gives a role."""
    queries, keys = spec.heads * spec.head_width, spec.kv_heads * spec.head_width
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("embed", "head"), (spec.vocab_size, spec.width)),
        **dict.fromkeys(("k", "v"), (keys, spec.width)),
        **dict.fromkeys(("gate", "up"), (spec.ffn, spec.width)),
        **dict.fromkeys(("k_bias", "v_bias"), (keys,)),
        **dict.fromkeys(("q_norm", "k_norm"), (spec.head_width,)),
        "q": (queries, spec.width),
        "o": (spec.width, queries),
        "down": (spec.width, spec.ffn),
        "q_bias": (queries,),
    }
    return shapes.get(role, (spec.width,))


@dataclass(frozen=True, slots=True)
class CausalModel:
    """A spec with its weights: `load(role, layer)` reads one in float32, `layer` None for `MODEL_ROLES`.

    Nothing is kept: what is asked for twice is read twice.
    """

    spec: CausalSpec
    load: Callable[[str, int | None], Float]
    names: Callable[[str, int | None], str] = field(default=lambda role, layer: role)  # in the checkpoint, for errors
