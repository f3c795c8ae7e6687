"""A `CausalModel` as llama.cpp has it: its tensors by name, and what its graphs cannot do.

Knows llama.cpp's conventions (which architectures turn neighbouring pairs, which fuse, what is fixed in a graph), and
nothing of files, tokens or quantization.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.families.causal import MODEL_ROLES, CausalModel, CausalSpec, Float, Rope

ARCHITECTURES = {
    **{"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"},
    **{"gemma3": "gemma3", "smollm3": "smollm3", "phi3": "phi3"},
}
_MODEL_NAMES = {"embed": "token_embd.weight", "final_norm": "output_norm.weight", "head": "output.weight"}
_LAYER_NAMES = {
    "attention_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "post_attention_norm": "post_attention_norm.weight",
    "post_ffn_norm": "post_ffw_norm.weight",
}
_PHI_FUSED = {"attn_qkv.weight": ("q", "k", "v"), "ffn_up.weight": ("gate", "up")}
# These turn value 2i with 2i + 1; the others i with i + width / 2, as Hugging Face does.
_NEIGHBOURING_PAIRS = ("llama", "smollm3")
_FACTORS = ("llama", "phi3")  # read factors of the angles
_WINDOWS = ("gemma3",)
_HEADS_SHARE_WIDTH = ("qwen2", "phi3")
_NOPE_STEP = 4  # llama.cpp's SmolLM3 leaves positions out of every fourth layer, whatever the file says
_GEMMA_STEP = 6  # every sixth layer of its Gemma 3 sees all, where the file says nothing
_GEMMA_27B_LAYERS = 62  # by this number llama.cpp takes another attention scale


@dataclass(frozen=True, slots=True)
class Graph:
    """What a file for llama.cpp says of a model beyond its sizes.

    `context` is what it does as the source does: where llama.cpp has no sliding window for an architecture, the
    window. `notes` say what a user should know of the difference.
    """

    architecture: str
    context: int
    sliding_pattern: tuple[bool, ...] | None
    notes: tuple[str, ...]


def graph_of(spec: CausalSpec, name: str) -> Graph:
    """What llama.cpp makes of a spec. Raises UnsupportedModelError for what it would compute otherwise."""
    architecture = ARCHITECTURES[spec.family]
    _check_rope(spec, architecture, name)
    _check_fixed(spec, architecture, name)
    context, notes = spec.context, list[str]()
    if spec.sliding_window is not None and architecture not in _WINDOWS and spec.sliding_window < context:
        context = spec.sliding_window
        notes.append(
            f"llama.cpp has no sliding window for {architecture}: the context is {context} positions, the window, "
            f"instead of {spec.context}"
        )
    if spec.rope.short_factors is not None and spec.rope.original_context is not None:
        notes.append(
            f"llama.cpp scales positions for long text as soon as the context it is given exceeds "
            f"{spec.rope.original_context}; the source once the text does"
        )
    usual = tuple((layer + 1) % _GEMMA_STEP != 0 for layer in range(spec.layers))
    pattern = spec.sliding_layers if architecture in _WINDOWS and spec.sliding_layers != usual else None
    return Graph(architecture, context, pattern or None, tuple(notes))


def gguf_tensors(model: CausalModel) -> Iterator[tuple[str, Float]]:
    """Every tensor under llama.cpp's name, float32, rows as llama.cpp wants them; one in memory at a time."""
    spec = model.spec
    architecture = ARCHITECTURES[spec.family]
    for role in MODEL_ROLES:
        if role != "head" or not spec.tied:
            yield _MODEL_NAMES[role], model.load(role, None)
    yield from _factor_tensors(spec.rope)
    for layer in range(spec.layers):
        fused = _PHI_FUSED if architecture == "phi3" else {}
        for name, parts in fused.items():
            yield f"blk.{layer}.{name}", np.concatenate([model.load(part, layer) for part in parts])
        for role in spec.layer_roles():
            if any(role in parts for parts in fused.values()):
                continue
            yield f"blk.{layer}.{_LAYER_NAMES[role]}", in_row_order(spec, role, model.load(role, layer))


def in_row_order(spec: CausalSpec, role: str, array: Float) -> Float:
    """What has a row for each of a role's, (rows,) or (rows, columns), with its rows as llama.cpp wants them."""
    if ARCHITECTURES[spec.family] in _NEIGHBOURING_PAIRS and role in ("q", "k"):
        return neighbouring_pairs(array, spec.heads if role == "q" else spec.kv_heads)
    return array


def tensor_name(spec: CausalSpec, role: str, layer: int) -> str:
    """llama.cpp's name of what holds a role of a layer."""
    fused = _PHI_FUSED if ARCHITECTURES[spec.family] == "phi3" else {}
    inside = next((name for name, parts in fused.items() if role in parts), None)
    return f"blk.{layer}.{inside or _LAYER_NAMES[role]}"


def weight_modules(model: CausalModel) -> dict[str, str]:
    """Of every matrix of a layer, llama.cpp's name -> the module of transformers' model that multiplies by it."""
    found = dict[str, str]()
    for layer in range(model.spec.layers):
        for role in ("q", "k", "v", "o", "gate", "up", "down"):
            stored = model.names(role, layer)
            path = f"model.{stored[stored.index('layers.') :]}".removesuffix(".weight")
            found[tensor_name(model.spec, role, layer)] = path
    return found


def neighbouring_pairs(weight: Float, heads: int) -> Float:
    """Rows (heads * width, columns) reordered within each head: 0, width / 2, 1, width / 2 + 1, ..."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def _factor_tensors(rope: Rope) -> Iterator[tuple[str, Float]]:
    if rope.factors is None:
        return
    if rope.short_factors is None:
        yield "rope_freqs.weight", np.array(rope.factors, np.float32)
        return
    yield "rope_factors_long.weight", np.array(rope.factors, np.float32)
    yield "rope_factors_short.weight", np.array(rope.short_factors, np.float32)


def _check_rope(spec: CausalSpec, architecture: str, name: str) -> None:
    rope, local = spec.rope, spec.local_rope
    if rope.factors is not None and architecture not in _FACTORS:
        raise UnsupportedModelError(f"{name}: llama.cpp does not scale the rotation of a {spec.family} by factors")
    if rope.width != spec.head_width and architecture != "phi3":
        raise UnsupportedModelError(
            f"{name}: {rope.width} of {spec.head_width} values of a head turn; llama.cpp's {spec.family} turns all"
        )
    if local is not None and (local.factors is not None or local.linear_factor != 1 or local.width != rope.width):
        raise UnsupportedModelError(f"{name}: llama.cpp does not scale the rotation of sliding layers")


def _check_fixed(spec: CausalSpec, architecture: str, name: str) -> None:
    """What llama.cpp's graphs have built in."""
    if architecture in _HEADS_SHARE_WIDTH and spec.heads * spec.head_width != spec.width:
        raise UnsupportedModelError(
            f"{name}: {spec.heads} heads of {spec.head_width} are not the width {spec.width}; llama.cpp's "
            f"{spec.family} needs that"
        )
    if architecture == "smollm3":
        fixed = tuple((layer + 1) % _NOPE_STEP != 0 for layer in range(spec.layers))
        if (spec.rope_layers or (True,) * spec.layers) != fixed:
            raise UnsupportedModelError(
                f"{name}: no_rope_layers is not every fourth layer, which is what llama.cpp's smollm3 has built in"
            )
    if architecture == "gemma3":
        of_width = spec.width // spec.heads if spec.layers == _GEMMA_27B_LAYERS else spec.head_width
        if not np.isclose(spec.attention_scale, of_width**-0.5, rtol=1e-6):
            raise UnsupportedModelError(
                f"{name}: query_pre_attn_scalar is {spec.attention_scale**-2:g}; llama.cpp's gemma3 of "
                f"{spec.layers} layers has {of_width} built in"
            )
