"""A decoder-only language model as one graph of a `.tflite` file: tokens in, logits of the positions asked for out.

Knows the layers that `CausalSpec` describes and the operators that run them fast on a CPU. Knows nothing of
checkpoints, and decides no precision (`causal_recipe.py` does).

One graph serves prompt, part of a prompt and step. Inputs: `tokens` (t,) int32, `positions` (t,) float32, their places
in the text; `logit_positions` (p,) int32, counted within this run; `past_key_i`, `past_value_i` (1, kv heads, capacity,
head width) float32, where the engine keeps what `key_i` and `value_i` of earlier runs gave; `past_bias` (1, 1, s,
capacity) and `new_bias` (1, 1, g * t, t) float32, 0 where a token sees another and -1e9 elsewhere, once for each of the
g heads that share a key (s is 1 where all tokens see the same past, else g * t); for layers that see a window only
`past_bias_local`, `new_bias_local`, (1, 1, g * t, capacity) and as above. Outputs: `logits` (1, p, vocabulary),
`key_i`, `value_i` (1, kv heads, t, head width) of the new tokens, all float32; a model made for embeddings has `hidden`
(t, width) too.
"""

import numpy as np

from sottovoce_compiler.families.causal import CausalModel, Rope
from sottovoce_compiler.lowerings.litert.causal_recipe import CausalRecipe
from sottovoce_compiler.lowerings.litert.graph import Graph, Model
from sottovoce_compiler.lowerings.litert.layers import (
    binary,
    concat,
    cut,
    gather,
    gelu,
    linear,
    lookup,
    reshape,
    rms_norm,
    self_attention,
    split,
    transpose,
    unary,
)
from sottovoce_compiler.lowerings.onnx.causal import rotary_frequencies

_Pair = tuple[int, int]


class CausalLowering:
    """Builds the graph of `model`, with positions up to `context`.

    Phi-3's "longrope" has two sets of factors; the one for `context` is used throughout, so that what is in the cache
    never has to be turned again.
    """

    def __init__(self, model: CausalModel, recipe: CausalRecipe, file: Model, context: int) -> None:
        self.model, self.spec, self.recipe = model, model.spec, recipe
        self.file, self.context = file, context
        self._turns: dict[Rope, _Pair] = {}

    def graph(self) -> Graph:
        """See above."""
        spec, g = self.spec, self.file.graph("causal")
        tokens = g.input("tokens", (-1,), "int32")
        positions = g.input("positions", (-1,))
        wanted = g.input("logit_positions", (-1,), "int32")
        biases = _biases(g, "")
        local = _biases(g, "_local") if any(self._windowed(i) for i in range(spec.layers)) else biases
        embedding = self.recipe.head(self.model.load("embed", None))
        x = lookup(g, "embed", embedding, tokens)
        if spec.embedding_scale != 1.0:
            x = binary(g, "MUL", x, g.constant(spec.embedding_scale))
        for i in range(spec.layers):
            x = self._layer(g, x, i, positions, local if self._windowed(i) else biases)
        if spec.pooling is not None:
            g.output(self._norm(g, x, "final_norm", None), "hidden")
        last = self._norm(g, gather(g, x, wanted), "final_norm", None)
        head = embedding if spec.tied else self.recipe.head(self.model.load("head", None))
        logits = linear(g, last, "embed" if spec.tied else "head", head)
        if (cap := spec.final_softcap) is not None:
            bound = g.constant(cap)
            logits = binary(g, "MUL", unary(g, "TANH", binary(g, "DIV", logits, bound)), bound)
        g.output(reshape(g, logits, (1, -1, spec.vocab_size)), "logits")
        return g

    def _windowed(self, i: int) -> bool:
        """Whether layer i sees less than there is room for."""
        window = self.spec.sliding_window
        return window is not None and self.spec.slides(i) and window < self.context

    def _layer(self, g: Graph, x: int, i: int, positions: int, biases: _Pair) -> int:
        change = self._attention(g, self._norm(g, x, "attention_norm", i), i, positions, biases)
        if self.spec.post_norms:
            change = self._norm(g, change, "post_attention_norm", i)
        x = binary(g, "ADD", x, change)
        change = self._feed_forward(g, self._norm(g, x, "ffn_norm", i), i)
        if self.spec.post_norms:
            change = self._norm(g, change, "post_ffn_norm", i)
        return binary(g, "ADD", x, change)

    def _norm(self, g: Graph, x: int, role: str, layer: int | None, scale: float = 1.0) -> int:
        name = role if layer is None else f"layers.{layer}.{role}"
        gamma = self.model.load(role, layer) * np.float32(scale)
        return rms_norm(g, x, g.weight(name, gamma), self.spec.norm_eps)

    # -- attention -------------------------------------------------------------------------------------------------

    def _attention(self, g: Graph, x: int, i: int, positions: int, biases: _Pair) -> int:
        spec = self.spec
        q, k, v = self._queries_keys_values(g, x, i)
        if spec.turns(i):
            q, k = (self._turned(g, part, spec.rope_of(i), positions) for part in (q, k))
        g.output(k, f"key_{i}")
        g.output(v, f"value_{i}")
        cache = (1, spec.kv_heads, -1, spec.head_width)
        past = g.input(f"past_key_{i}", cache), g.input(f"past_value_{i}", cache)
        # Heads that share a key stand behind each other as rows of it.
        mixed = self_attention(g, (reshape(g, q, cache), k, v), past, biases)
        apart = reshape(g, mixed, (1, spec.heads, -1, spec.head_width))
        joined = reshape(g, transpose(g, apart, (0, 2, 1, 3)), (-1, spec.heads * spec.head_width))
        return self._linear(g, joined, "o", i)

    def _queries_keys_values(self, g: Graph, x: int, i: int) -> tuple[int, int, int]:
        """(1, heads, t, head width) each; the scores' scale is in the queries."""
        spec = self.spec
        sizes = [spec.heads, spec.kv_heads, spec.kv_heads]
        if self.recipe.together(i):
            together = self._heads_first(g, self._fused(g, x, ("q", "k", "v"), i), sum(sizes))
            q, k, v = split(g, together, sizes, 1)
        else:
            q, k = split(g, self._heads_first(g, self._fused(g, x, ("q", "k"), i), sum(sizes[:2])), sizes[:2], 1)
            v = self._heads_first(g, self._fused(g, x, ("v",), i), sizes[2])
        if spec.qk_norm:
            q, k = self._norm(g, q, "q_norm", i, spec.attention_scale), self._norm(g, k, "k_norm", i)
        return q, k, v

    def _heads_first(self, g: Graph, x: int, heads: int) -> int:
        return transpose(g, reshape(g, x, (1, -1, heads, self.spec.head_width)), (0, 2, 1, 3))

    def _turned(self, g: Graph, x: int, rope: Rope, positions: int) -> int:
        """Rotary embedding of (1, heads, t, head width): pairs are value i and i + width / 2 of the first `width`."""
        cosine, sine = self._angles(g, rope, positions)
        half, width, shape = rope.width // 2, rope.width, g.shapes[x]
        a, b = (cut(g, x, 3, start, start + half, (*shape[:3], half)) for start in (0, half))
        first = binary(g, "SUB", binary(g, "MUL", a, cosine), binary(g, "MUL", b, sine))
        second = binary(g, "ADD", binary(g, "MUL", b, cosine), binary(g, "MUL", a, sine))
        rest = [] if width == shape[3] else [cut(g, x, 3, width, None, (*shape[:3], shape[3] - width))]
        return concat(g, [first, second, *rest], 3)

    def _angles(self, g: Graph, rope: Rope, positions: int) -> _Pair:
        """Cosine and sine (t, width / 2) of this run's positions."""
        if rope not in self._turns:
            frequencies = g.weight(f"rope_{len(self._turns)}", rotary_frequencies(rope, self.context)[None])
            angles = binary(g, "MUL", reshape(g, positions, (-1, 1)), frequencies)
            found = [unary(g, kind, angles) for kind in ("COS", "SIN")]
            if rope.attention_factor != 1.0:
                found = [binary(g, "MUL", one, g.constant(rope.attention_factor)) for one in found]
            self._turns[rope] = found[0], found[1]
        return self._turns[rope]

    # -- feed-forward ----------------------------------------------------------------------------------------------

    def _feed_forward(self, g: Graph, x: int, i: int) -> int:
        gate, up = split(g, self._fused(g, x, ("gate", "up"), i), [self.spec.ffn] * 2, 1)
        if self.spec.activation == "silu":
            active = binary(g, "MUL", gate, unary(g, "LOGISTIC", gate))
        else:
            active = gelu(g, gate, approximate=True)
        return self._linear(g, binary(g, "MUL", active, up), "down", i)

    # -- weights ---------------------------------------------------------------------------------------------------

    def _fused(self, g: Graph, x: int, roles: tuple[str, ...], i: int) -> int:
        """Several matrices from one multiplication: the activations are quantized and read once."""
        scales = [self._scale(role) for role in roles]
        weight = np.concatenate([self.model.load(role, i) * scale for role, scale in zip(roles, scales, strict=True)])
        bias = None
        if self.spec.qkv_bias and roles[0] != "gate":
            parts = zip(roles, scales, strict=True)
            bias = np.concatenate([self.model.load(f"{role}_bias", i) * scale for role, scale in parts])
        return linear(g, x, f"layers.{i}.{'_'.join(roles)}", self.recipe.linear(roles[0], i)(weight), bias)

    def _scale(self, role: str) -> np.float32:
        """What a matrix is multiplied by: the scores' scale goes to the queries, or to their norm."""
        return np.float32(self.spec.attention_scale if role == "q" and not self.spec.qk_norm else 1)

    def _linear(self, g: Graph, x: int, role: str, i: int) -> int:
        return linear(g, x, f"layers.{i}.{role}", self.recipe.linear(role, i)(self.model.load(role, i)))


def _biases(g: Graph, suffix: str) -> _Pair:
    """Of the past and of the new tokens."""
    return g.input(f"past_bias{suffix}", (1, 1, -1, -1)), g.input(f"new_bias{suffix}", (1, 1, -1, -1))
