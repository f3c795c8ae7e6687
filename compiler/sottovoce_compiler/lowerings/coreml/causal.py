"""A decoder-only language model as functions of one program, with its cache as states.

Names and layouts are those of Hugging Face's swift-transformers: `inputIds` (1, n) int32 and `causalMask` (1, 1, n,
context), 0 where a token sees a position and very negative where not; states `keyCache` and `valueCache` (layers, 1, kv
heads, context, head width); `logits` (1, n, vocabulary). All float16 but the first. Each function has its own n: one
reads a prompt in parts, one takes a step. Both have the same weights and states.

Where a token stands is how many positions it sees: the mask says it, so that there is no further input. New keys and
values go there, and the rows of `n` follow each other.

The residual stream and the norms are float32, since the squares of what some models carry there exceed float16;
products are float16.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from coremltools.converters.mil import Builder as mb
from numpy.typing import NDArray

from sottovoce.engines.coreml_chat import FUNCTIONS
from sottovoce_compiler.families.causal import CausalSpec, Rope
from sottovoce_compiler.lowerings.coreml.causal_recipe import CausalParts, key
from sottovoce_compiler.lowerings.coreml.program import INT, Constants, Var, function, state, tensor
from sottovoce_compiler.lowerings.coreml.weights import Float
from sottovoce_compiler.lowerings.onnx.causal import rotary_frequencies

Load = Callable[[str], Float]  # `causal_recipe.key` -> float32 array
_HIDDEN = np.float16(-3e4)
_SEEN = np.float16(-1)  # a mask's value from here on means that the position is seen


@dataclass(frozen=True)
class CausalPrograms:
    """Builds the functions of one model with room for `context` positions."""

    spec: CausalSpec
    load: Load
    parts: CausalParts
    context: int
    system: str

    def all(self) -> Mapping[str, Callable[[], object]]:
        """By name, what builds each function."""
        return {name: self._maker(tokens) for name, tokens in FUNCTIONS.items()}

    def _maker(self, tokens: int) -> Callable[[], object]:
        return lambda: self.function(tokens)

    def function(self, tokens: int) -> object:
        """The function for `tokens` tokens at once."""
        spec = self.spec
        cache = [spec.layers, 1, spec.kv_heads, self.context, spec.head_width]
        inputs = {
            **{"inputIds": tensor([1, tokens], INT), "causalMask": tensor([1, 1, tokens, self.context])},
            **{"keyCache": state(cache), "valueCache": state(cache)},
        }
        return function(self.system, inputs, _Emitter(self, tokens).body)


class _Emitter:
    """Emits one function."""

    def __init__(self, programs: CausalPrograms, tokens: int) -> None:
        self.spec, self.programs, self.tokens = programs.spec, programs, tokens
        self.const = Constants()
        self.turns: dict[Rope, tuple[Var, Var]] = {}

    def body(self, inputIds: Var, causalMask: Var, keyCache: Var, valueCache: Var) -> dict[str, Var]:
        spec = self.spec
        seen = mb.cast(x=mb.greater_equal(x=causalMask, y=_SEEN), dtype="int32")
        places = mb.sub(x=mb.reduce_sum(x=seen, axes=[-1], keep_dims=False), y=np.int32(1))
        self.places = mb.reshape(x=places, shape=[self.tokens])
        self.first = mb.slice_by_index(x=self.places, begin=[0], end=[1])
        self.mask, self.near = causalMask, self._window(causalMask)
        table = self._matrix("embed", None)
        x = mb.cast(x=mb.gather(x=table, indices=inputIds, axis=0), dtype="fp32")
        if spec.embedding_scale != 1:
            x = mb.mul(x=x, y=np.float32(spec.embedding_scale))
        for layer in range(spec.layers):
            attended = self._attention(self._norm(x, "attention_norm", layer), layer, keyCache, valueCache)
            x = self._added(x, attended, "post_attention_norm", layer)
            x = self._added(x, self._feed_forward(self._norm(x, "ffn_norm", layer), layer), "post_ffn_norm", layer)
        x = self._norm(x, "final_norm", None)
        logits = mb.linear(x=x, weight=table if spec.tied else self._matrix("head", None))
        if (cap := spec.final_softcap) is not None:
            logits = mb.mul(x=mb.tanh(x=mb.mul(x=logits, y=np.float16(1 / cap))), y=np.float16(cap))
        return {"logits": logits}

    def _added(self, x: Var, change: Var, norm: str, layer: int) -> Var:
        """x + change, with a norm of its own in between where the model has one."""
        wide = mb.cast(x=change, dtype="fp32")
        if self.spec.post_norms:
            wide = mb.cast(x=self._norm(wide, norm, layer), dtype="fp32")
        return mb.add(x=x, y=wide)

    def _norm(self, x: Var, role: str, layer: int | None) -> Var:
        """RMS norm over the last axis of float32 values, in float16."""
        mean = mb.reduce_mean(x=mb.square(x=x), axes=[-1], keep_dims=True)
        scale = mb.rsqrt(x=mean, epsilon=np.float32(self.spec.norm_eps))
        gamma = self.const(_name(role, layer), self.programs.load(key(role, layer)))
        return mb.cast(x=mb.mul(x=mb.mul(x=x, y=scale), y=gamma), dtype="fp16")

    # -- attention -------------------------------------------------------------------------------------------------

    def _attention(self, x: Var, layer: int, key_cache: Var, value_cache: Var) -> Var:
        spec, n = self.spec, self.tokens
        groups, width = spec.heads // spec.kv_heads, spec.head_width
        query = self._heads(x, "q", spec.heads, layer)
        query = mb.mul(x=query, y=np.float16(spec.attention_scale))
        query = mb.reshape(x=query, shape=[spec.kv_heads, groups, n, width])
        keys = self._cached(self._heads(x, "k", spec.kv_heads, layer), key_cache, layer)
        values = self._cached(self._heads(x, "v", spec.kv_heads, layer), value_cache, layer)
        mask = self.near if self.near is not None and spec.slides(layer) else self.mask
        scores = mb.add(x=mb.matmul(x=query, y=keys, transpose_y=True), y=mask)
        mixed = mb.matmul(x=mb.softmax(x=scores, axis=-1), y=values)
        mixed = mb.transpose(x=mb.reshape(x=mixed, shape=[1, spec.heads, n, width]), perm=[0, 2, 1, 3])
        return self._linear(mb.reshape(x=mixed, shape=[1, n, spec.heads * width]), "o", layer)

    def _heads(self, x: Var, role: str, heads: int, layer: int) -> Var:
        """(1, heads, n, head width), turned where the layer's positions are."""
        y = mb.reshape(x=self._linear(x, role, layer), shape=[1, self.tokens, heads, self.spec.head_width])
        if role == "v":
            return mb.transpose(x=y, perm=[0, 2, 1, 3])
        if self.spec.qk_norm:
            y = self._norm(mb.cast(x=y, dtype="fp32"), f"{role}_norm", layer)
        y = mb.transpose(x=y, perm=[0, 2, 1, 3])
        return self._turned(y, self.spec.rope_of(layer)) if self.spec.turns(layer) else y

    def _turned(self, x: Var, rope: Rope) -> Var:
        """Rotated by the angles of the tokens' places: value i with value i + width / 2."""
        cosine, sine = self._angles(rope)
        half, rest = rope.width // 2, self.spec.head_width - rope.width
        sizes = [half, half, *([rest] if rest else [])]
        first, second, *others = mb.split(x=x, split_sizes=sizes, axis=-1)
        turned = [
            mb.sub(x=mb.mul(x=first, y=cosine), y=mb.mul(x=second, y=sine)),
            mb.add(x=mb.mul(x=second, y=cosine), y=mb.mul(x=first, y=sine)),
        ]
        return mb.concat(values=[*turned, *others], axis=-1)

    def _angles(self, rope: Rope) -> tuple[Var, Var]:
        """Cosine and sine (n, width / 2) of each token's place."""
        if rope not in self.turns:
            context = self.programs.context
            angles = np.outer(np.arange(context, dtype=np.float64), rotary_frequencies(rope, context))
            number = len(self.turns)
            found = []
            for name, of in (("cosine", np.cos), ("sine", np.sin)):
                table = self.const.vector(f"{name}_{number}", (of(angles) * rope.attention_factor).astype(np.float32))
                found.append(mb.gather(x=table, indices=self.places, axis=0))
            self.turns[rope] = found[0], found[1]
        return self.turns[rope]

    def _cached(self, new: Var, cache: Var, layer: int) -> Var:
        """`new` (1, kv heads, n, head width) put into the cache at the tokens' places; the layer's cache (kv heads, 1,
        context, head width)."""
        spec, context = self.spec, self.programs.context
        row = mb.reshape(x=new, shape=[1, 1, spec.kv_heads, self.tokens, spec.head_width])
        last = mb.add(x=self.first, y=np.int32(self.tokens))
        begin = mb.concat(values=[np.array([layer, 0, 0], np.int32), self.first, np.array([0], np.int32)], axis=0)
        sizes = np.array([layer + 1, 1, spec.kv_heads], np.int32)
        end = mb.concat(values=[sizes, last, np.array([spec.head_width], np.int32)], axis=0)
        whole = mb.slice_update(x=mb.read_state(input=cache), update=row, begin=begin, end=end)
        whole = mb.coreml_update_state(state=cache, value=whole)
        mine = mb.slice_by_index(
            x=whole,
            begin=[layer, 0, 0, 0, 0],
            end=[layer + 1, 1, spec.kv_heads, context, spec.head_width],
        )
        return mb.reshape(x=mine, shape=[spec.kv_heads, 1, context, spec.head_width])

    def _window(self, mask: Var) -> Var | None:
        """The mask of layers that see the last few positions only; None where no layer does."""
        window, context = self.spec.sliding_window, self.programs.context
        if window is None or window >= context or not any(self.spec.sliding_layers):
            return None
        behind = mb.sub(x=mb.reshape(x=self.places, shape=[1, 1, self.tokens, 1]), y=self.const("keys", _keys(context)))
        return mb.select(cond=mb.less(x=behind, y=np.int32(window)), a=mask, b=_HIDDEN)

    # -- the rest of a layer ---------------------------------------------------------------------------------------

    def _feed_forward(self, x: Var, layer: int) -> Var:
        gate = self._linear(x, "gate", layer)
        active = mb.silu(x=gate) if self.spec.activation == "silu" else mb.gelu(x=gate, mode="TANH_APPROXIMATION")
        return self._linear(mb.mul(x=active, y=self._linear(x, "up", layer)), "down", layer)

    def _linear(self, x: Var, role: str, layer: int) -> Var:
        weight = self._matrix(role, layer)
        if role not in ("q", "k", "v") or not self.spec.qkv_bias:
            return mb.linear(x=x, weight=weight)
        bias = self.const.vector(_name(f"{role}_bias", layer), self.programs.load(key(f"{role}_bias", layer)))
        return mb.linear(x=x, weight=weight, bias=bias)

    def _matrix(self, role: str, layer: int | None) -> Var:
        stored = self.programs.parts.of(role, layer)
        return self.const.matrix(_name(role, layer), self.programs.load(key(role, layer)), stored)


def _name(role: str, layer: int | None) -> str:
    return role if layer is None else f"layer_{layer}_{role}"


def _keys(context: int) -> NDArray[np.int32]:
    return np.arange(context, dtype=np.int32).reshape(1, 1, 1, context)
