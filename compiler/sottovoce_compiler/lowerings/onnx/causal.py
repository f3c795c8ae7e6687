"""A decoder-only language model as one ONNX graph: tokens in, logits of the positions asked for out.

Knows the layers that `CausalSpec` describes and the operators that run them fast on a CPU. Knows nothing of
checkpoints, and decides no precision (`causal_recipe.py` does).

One graph serves prompt, part of a prompt and step. Inputs: `tokens` (1, n) int64; `total_length` (1,) int32, the
positions there are after this run; `logit_positions` (m,) int64, counted within this run; `past_key_i` and
`past_value_i` (1, kv heads, capacity, head width) float32 for every layer i. Outputs: `logits` (1, m, vocabulary)
float32, `present_key_i` and `present_value_i`, which are written in place when the engine binds them to the buffers of
the past; a model made for embeddings has `hidden` (1, n, width) float32 too.
"""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.families.causal import CausalModel, Float, Rope
from sottovoce_compiler.lowerings.onnx.causal_recipe import CausalRecipe
from sottovoce_compiler.lowerings.onnx.embedding import TiedEmbedding
from sottovoce_compiler.lowerings.onnx.graph import MICROSOFT, Graph, WeightFile

_FLOAT = TensorProto.FLOAT
_ROTARY_UNIT = 16  # what GroupQueryAttention's rotation takes
_ENGINE, _ENGINE_OF_WINDOWS = "1.22", "1.24"  # onnxruntime; before 1.24 a window had one position more
_Pair = tuple[str, str]


class CausalLowering:
    """Builds the graph of `model` over a weight file, with positions up to `context`.

    Phi-3's "longrope" has two sets of factors; the one for `context` is used throughout, as llama.cpp does, so that
    what is in the cache never has to be turned again.
    """

    def __init__(self, model: CausalModel, recipe: CausalRecipe, weights: WeightFile, context: int) -> None:
        self.model, self.spec, self.recipe = model, model.spec, recipe
        self.weights, self.context = weights, context
        self._ropes: dict[Rope, _Pair] = {}

    @property
    def min_engine_version(self) -> str:
        """The first onnxruntime that computes this graph rightly."""
        return _ENGINE_OF_WINDOWS if any(self._window(layer) > 0 for layer in range(self.spec.layers)) else _ENGINE

    def graph(self, metadata: dict[str, str]) -> bytes:
        """The serialized graph; its weights are in the weight file.

        Raises UnsupportedModelError for a model that onnxruntime's operators cannot turn.
        """
        self._ropes = {}
        g = Graph("causal", self.weights)
        tokens = g.input("tokens", TensorProto.INT64, [1, "length"])
        total = g.input("total_length", TensorProto.INT32, [1])
        wanted = g.input("logit_positions", TensorProto.INT64, ["logits"])
        embedding = TiedEmbedding(self.recipe.head, self.model.load("embed", None))
        x = embedding.lookup(g, tokens)
        if self.spec.embedding_scale != 1.0:
            x = g.op("Mul", x, g.constant(self.spec.embedding_scale, np.float32))
        lengths = (g.op("Sub", total, g.constant([1], np.int32)), g.op("ReduceMax", total, keepdims=0))
        change: str | None = None
        for layer in range(self.spec.layers):
            x, change = self._layer(g, x, change, layer, lengths)
        assert change is not None
        if self.spec.pooling is not None:
            hidden, _ = self._norm(g, x, change, "final_norm", None)
            g.output(hidden, "hidden", _FLOAT, [1, "length", self.spec.width])
        self._logits(g, [g.op("Gather", value, wanted, axis=1) for value in (x, change)], embedding)
        return g.serialize(metadata)

    def _logits(self, g: Graph, last: Sequence[str], embedding: TiedEmbedding) -> None:
        normed, _ = self._norm(g, last[0], last[1], "final_norm", None)
        if self.spec.tied:
            logits = embedding.head(g, normed)
        else:
            logits = self.recipe.head.emit(g, normed, "head", self.model.load("head", None), None)
        if (cap := self.spec.final_softcap) is not None:
            bound = g.constant(cap, np.float32)
            logits = g.op("Mul", g.op("Tanh", g.op("Div", logits, bound)), bound)
        g.output(logits, "logits", _FLOAT, [1, "logits", self.spec.vocab_size])

    def _layer(self, g: Graph, x: str, change: str | None, i: int, lengths: _Pair) -> _Pair:
        """The residual stream, and what is still to be added to it (after the last layer for few positions only)."""
        normed, x = self._norm(g, x, change, "attention_norm", i)
        attended = self._attention(g, normed, i, lengths)
        if self.spec.post_norms:
            attended, _ = self._norm(g, attended, None, "post_attention_norm", i)
        normed, x = self._norm(g, x, attended, "ffn_norm", i)
        change = self._feed_forward(g, normed, i)
        if self.spec.post_norms:
            change, _ = self._norm(g, change, None, "post_ffn_norm", i)
        return x, change

    def _norm(self, g: Graph, x: str, change: str | None, role: str, layer: int | None) -> _Pair:
        """RMS norm of x + change, and that sum; in one node, which takes three quarters of the time of two."""
        gamma, epsilon = self._vector(g, role, layer), self.spec.norm_eps
        if change is None:
            return g.op("SimplifiedLayerNormalization", x, gamma, axis=-1, epsilon=epsilon), x
        names = [f"norm_of_{change}", "", "", f"sum_with_{change}"]
        normed, *_, total = g.multi(
            "SkipSimplifiedLayerNormalization", x, change, gamma, outs=names, domain=MICROSOFT, epsilon=epsilon
        )
        return normed, total

    # -- attention -------------------------------------------------------------------------------------------------

    def _attention(self, g: Graph, x: str, i: int, lengths: _Pair) -> str:
        spec = self.spec
        inputs = self._queries_keys_values(g, x, i)
        turns = spec.turns(i)
        shape: list[int | str] = [1, spec.kv_heads, "capacity", spec.head_width]
        past = [g.input(f"past_{kind}_{i}", _FLOAT, shape) for kind in ("key", "value")]
        present = [f"present_{kind}_{i}" for kind in ("key", "value")]
        attended, *_ = g.multi(
            "GroupQueryAttention", *inputs, *past, *lengths, *(self._rope(g, spec.rope_of(i)) if turns else ()),
            outs=[f"attention_{i}", *present], domain=MICROSOFT, num_heads=spec.heads, kv_num_heads=spec.kv_heads,
            do_rotary=int(turns), scale=spec.attention_scale,
            local_window_size=self._window(i),
        )  # fmt: skip
        for name in present:
            g.declare_output(name, _FLOAT, shape)
        return self._linear(g, attended, "o", i)

    def _window(self, i: int) -> int:
        """Positions that layer i sees, itself included; -1 where that is all there is room for."""
        window = self.spec.sliding_window
        return window if window is not None and self.spec.slides(i) and window < self.context else -1

    def _queries_keys_values(self, g: Graph, x: str, i: int) -> list[str]:
        """What GroupQueryAttention takes: all in one, or apart where the heads of q and k have norms."""
        spec, together = self.spec, self.recipe.together(i)
        sizes = [spec.heads * spec.head_width, *[spec.kv_heads * spec.head_width] * 2]
        roles = ("q", "k", "v") if together else ("q", "k")
        rest = [] if together else [self._fused(g, x, "v", ("v",), i, spec.qkv_bias)]
        fused = self._fused(g, x, "".join(roles), roles, i, spec.qkv_bias)
        if not spec.qk_norm:
            return [g.op("Concat", fused, *rest, axis=-1) if rest else fused, "", ""]
        q, k, *v = g.multi("Split", fused, g.constant(sizes[: len(roles)]), outs=len(roles), axis=-1)
        return [self._head_norm(g, q, "q_norm", i, sizes[0]), self._head_norm(g, k, "k_norm", i, sizes[1]), *v, *rest]

    def _head_norm(self, g: Graph, x: str, role: str, i: int, size: int) -> str:
        heads = g.op("Reshape", x, g.constant([0, -1, size // self.spec.head_width, self.spec.head_width]))
        normed, _ = self._norm(g, heads, None, role, i)
        return g.op("Reshape", normed, g.constant([0, -1, size]))

    def _rope(self, g: Graph, rope: Rope) -> _Pair:
        """Cosine and sine (context, rotary width / 2) float32, computed when the session loads and not stored."""
        if rope.width % _ROTARY_UNIT:
            raise UnsupportedModelError(
                f"{self.spec.family}: {rope.width} values of each head turn; onnxruntime turns multiples of "
                f"{_ROTARY_UNIT}: compile to GGUF"
            )
        if rope not in self._ropes:
            frequencies = g.weight(f"rope_{len(self._ropes)}", rotary_frequencies(rope, self.context)[None])
            positions = g.op("Range", *(g.constant(value) for value in (0, self.context, 1)))
            column = g.op("Unsqueeze", g.op("Cast", positions, to=_FLOAT), g.constant([1]))
            angles = g.op("Mul", column, frequencies)
            factor = g.constant(rope.attention_factor, np.float32)
            cosine, sine = (g.op("Mul", g.op(kind, angles), factor) for kind in ("Cos", "Sin"))
            self._ropes[rope] = cosine, sine
        return self._ropes[rope]

    # -- feed-forward ----------------------------------------------------------------------------------------------

    def _feed_forward(self, g: Graph, x: str, i: int) -> str:
        both = self._fused(g, x, "gate_up", ("gate", "up"), i, False)
        gate, up = g.multi("Split", both, outs=2, axis=-1, num_outputs=2)
        if self.spec.activation == "silu":
            active = g.op("QuickGelu", gate, domain=MICROSOFT, alpha=1.0)  # x * sigmoid(x)
        else:
            active = g.op("Gelu", gate, approximate="tanh")
        return self._linear(g, g.op("Mul", active, up), "down", i)

    # -- weights ---------------------------------------------------------------------------------------------------

    def _fused(self, g: Graph, x: str, name: str, roles: Sequence[str], i: int, biased: bool) -> str:
        """Several matrices from one multiplication: the activations are quantized and read once."""
        weight = np.concatenate([self.model.load(role, i) for role in roles])
        bias = np.concatenate([self.model.load(f"{role}_bias", i) for role in roles]) if biased else None
        return self.recipe.linear(roles[0], i).emit(g, x, f"layers.{i}.{name}", weight, bias)

    def _linear(self, g: Graph, x: str, role: str, i: int) -> str:
        return self.recipe.linear(role, i).emit(g, x, f"layers.{i}.{role}", self.model.load(role, i), None)

    def _vector(self, g: Graph, role: str, layer: int | None) -> str:
        name = role if layer is None else f"layers.{layer}.{role}"
        if not any(known.name == name for known in g.initializers):
            g.weight(name, self.model.load(role, layer))
        return name


def rotary_frequencies(rope: Rope, context: int) -> Float:
    """Angle per position of each pair (width / 2,) float32, for a cache of `context` positions; see `Rope`."""
    frequencies = rope.base ** (-np.arange(0, rope.width, 2, dtype=np.float64) / rope.width) / rope.linear_factor
    short = rope.short_factors is not None and context <= (rope.original_context or 0)
    factors = rope.short_factors if short else rope.factors
    if factors is not None:
        frequencies /= np.asarray(factors, np.float64)
    return frequencies.astype(np.float32)
