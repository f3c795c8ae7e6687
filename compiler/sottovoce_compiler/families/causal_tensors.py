"""Where a decoder-only model's weights lie in a checkpoint: names, shapes, and what is done to reach `causal`'s
convention.

Finds the contradiction between a config and its weights before any of them is read, and a tensor that nothing would
use: a model with biases or experts that its config does not mention is refused, not compiled without them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.families.causal import MODEL_ROLES, CausalModel, CausalSpec, Float, role_shape
from sottovoce_compiler.sources.checkpoint import Checkpoint

_UNUSED_SUFFIXES = ("rotary_emb.inv_freq", "self_attn.masked_bias")  # computed; old checkpoints store them
_MODEL = {"embed": "embed_tokens.weight", "final_norm": "norm.weight"}
LLAMA_NAMES = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}
GEMMA_NAMES = {
    **LLAMA_NAMES,
    "post_attention_norm": "post_attention_layernorm.weight",
    "ffn_norm": "pre_feedforward_layernorm.weight",
    "post_ffn_norm": "post_feedforward_layernorm.weight",
}
PHI_NAMES = {
    **LLAMA_NAMES,
    **dict.fromkeys(("q", "k", "v"), "self_attn.qkv_proj.weight"),
    **dict.fromkeys(("gate", "up"), "mlp.gate_up_proj.weight"),
}


@dataclass(frozen=True)
class Layout:
    """How one family stores its weights. `prefixes` are what may stand before "embed_tokens.weight", `heads` what the
    head may be called; tensors that begin with one of `left_out` belong to a part that is not compiled."""

    names: Mapping[str, str] = field(default_factory=lambda: LLAMA_NAMES)
    fused: bool = False  # q, k and v in one tensor, gate and up in another
    prefixes: tuple[str, ...] = ("model.", "")
    heads: tuple[str, ...] = ("lm_head.weight",)
    left_out: tuple[str, ...] = ()
    norms_plus_one: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """One role's tensor: its name and stored shape, and the rows of it that are the role's."""

    name: str
    shape: tuple[int, ...]
    first: int
    rows: int


def causal_model(checkpoint: Checkpoint, spec: CausalSpec, layout: Layout) -> CausalModel:
    """The model of a checkpoint. Raises UnsupportedModelError naming a tensor whose shape config.json contradicts or
    that would be left unused, SourceError for a missing one."""
    where = _Where(checkpoint, spec, layout, _prefix(checkpoint, layout))
    for stored in where.all():
        if (found := checkpoint.tensors.shape(stored.name)) != stored.shape:
            raise UnsupportedModelError(
                f"{checkpoint.name}: {stored.name} has shape {found}, by config.json it has {stored.shape}"
            )
    _refuse_unused(checkpoint, spec, layout, {stored.name for stored in where.all()})

    def load(role: str, layer: int | None) -> Float:
        stored = where(role, layer)
        array = checkpoint.tensors.load(stored.name)
        if array.dtype.kind != "f":
            raise UnsupportedModelError(f"{checkpoint.name}: {stored.name} holds {array.dtype}, not floating point")
        values = np.ascontiguousarray(array[stored.first : stored.first + stored.rows], np.float32)
        return values + np.float32(1) if layout.norms_plus_one and role.endswith("norm") else values

    return CausalModel(spec, load, lambda role, layer: where(role, layer).name)


def _prefix(checkpoint: Checkpoint, layout: Layout) -> str:
    names = set(checkpoint.tensors.names())
    for prefix in layout.prefixes:
        if f"{prefix}{_MODEL['embed']}" in names:
            return prefix
    return layout.prefixes[0]


def _refuse_unused(checkpoint: Checkpoint, spec: CausalSpec, layout: Layout, used: set[str]) -> None:
    for name in checkpoint.tensors.names():
        ignored = name.endswith(_UNUSED_SUFFIXES) or name.startswith(layout.left_out)
        ignored = ignored or (spec.tied and name in layout.heads)
        if name not in used and not ignored:
            raise UnsupportedModelError(
                f"{checkpoint.name}: the weights have {name}, which a {spec.family} of this config.json does not use"
            )


@dataclass(frozen=True)
class _Where:
    """Role and layer -> the stored tensor."""

    checkpoint: Checkpoint
    spec: CausalSpec
    layout: Layout
    prefix: str

    def __call__(self, role: str, layer: int | None) -> Stored:
        first, rows, stored_rows, columns = _extent(self.spec, role, self.layout.fused)
        shape = (stored_rows,) if columns is None else (stored_rows, columns)
        return Stored(self._name(role, layer), shape, first, rows)

    def all(self) -> Iterator[Stored]:
        for role in MODEL_ROLES:
            if role != "head" or not self.spec.tied:
                yield self(role, None)
        for layer in range(self.spec.layers):
            for role in self.spec.layer_roles():
                yield self(role, layer)

    def _name(self, role: str, layer: int | None) -> str:
        if layer is not None:
            return f"{self.prefix}layers.{layer}.{self.layout.names[role]}"
        if role == "head":
            names = set(self.checkpoint.tensors.names())
            return next((name for name in self.layout.heads if name in names), self.layout.heads[0])
        return self.prefix + _MODEL[role]


def _extent(spec: CausalSpec, role: str, fused: bool) -> tuple[int, int, int, int | None]:
    """First row, rows, rows of the stored tensor (more where it is fused), columns (None: a vector)."""
    shape = role_shape(spec, role)
    rows, columns = shape[0], shape[1] if len(shape) == 2 else None
    queries, keys = spec.heads * spec.head_width, spec.kv_heads * spec.head_width
    starts = {"q": 0, "k": queries, "v": queries + keys, "gate": 0, "up": spec.ffn}
    if not fused or role not in starts:
        return 0, rows, rows, columns
    total = 2 * spec.ffn if role in ("gate", "up") else queries + 2 * keys
    return starts[role], rows, total, columns
