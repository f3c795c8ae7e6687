"""Whisper as two ONNX graphs: `encoder` (samples in, cross-attention keys and values out) and `decoder` (tokens in,
logits out).

Knows Whisper's architecture (Radford et al. 2022, arXiv 2212.04356) and the operators that run it fast on a CPU.
Knows nothing of where weights come from, and decides no precision (`recipe.py` does).

Encoder.  `audio` (1, n) float32 at 16 kHz, at most 30 s. The graph computes the log-mel spectrogram, and then the
encoder over what was said plus half a second, not over 30 s of padding. Cutting the context plainly makes Whisper
loop, because it never saw an utterance that was not followed by silence up to 30 s. Here the silence stays,
compressed: every `TAIL_STRIDE`-th frame of it is kept and stands for its neighbours, by adding log(how many) to its
attention scores. Silent frames differ only by their position embedding, so one key with weight m is nearly m keys. The
same `key_bias` goes to the decoder's cross-attention.

Decoder.  One graph serves prompt, step, batch and alignment; the self-attention cache is written in place (past and
present are the same buffer when the engine binds them so).
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.onnx.embedding import TiedEmbedding
from sottovoce_compiler.lowerings.onnx.graph import MICROSOFT, Graph, WeightFile
from sottovoce_compiler.lowerings.onnx.linear import Linear
from sottovoce_compiler.lowerings.onnx.mel import log_mel
from sottovoce_compiler.lowerings.onnx.recipe import Recipe

Float = NDArray[np.float32]
Load = Callable[[str], Float]  # tensor name in Hugging Face's naming -> float32 array

TAIL_STRIDE = 8  # silent frames that one kept frame stands for; 8 keeps the logits (docs/decisions.md), 32 breaks base
MARGIN_FRAMES = 25  # frames of 20 ms of plain silence after the audio, before compression starts
SAMPLES_PER_FRAME = 320
_SPARE_FRAMES = 2  # silence run through the stem beyond the context, so that its last frame has what follows it
_HEADS_AT_ONCE = 4  # attention scores of 30 s are 9 MB a head; more heads at once cost memory, not less time
_KEYS_TOGETHER = 64  # a multiple of every vector width
_HIDDEN = -1e9  # added to a score, takes its key out of the softmax
_FLOAT = TensorProto.FLOAT


class WhisperLowering:
    """Builds both graphs over one weight file."""

    def __init__(self, spec: WhisperSpec, load: Load, recipe: Recipe, weights: WeightFile) -> None:
        self.spec, self.load, self.recipe, self.weights = spec, load, recipe, weights

    # -- encoder ---------------------------------------------------------------------------------------------------

    def encoder(self, metadata: dict[str, str]) -> bytes:
        """The serialized encoder.

        Inputs: `audio` (1, n) float32. Outputs: `cross_key_i` (1, heads, head width, frames) and `cross_value_i`
        (1, heads, frames, head width) float32 for every decoder layer i, `key_bias` (1, 1, 1, frames) float32.
        """
        g = Graph("encoder", self.weights)
        audio = g.input("audio", _FLOAT, [1, "samples"])
        padded, context = self._pad(g, audio)
        mel = log_mel(g, padded, self.spec.n_mels)
        # Nothing follows the last frame of the longest context: its convolutions are padded there, as in training.
        mel = g.op("Slice", mel, g.constant([0]), g.constant([2 * self.spec.n_audio_ctx]), g.constant([2]))
        x, bias = self._with_silent_tail(g, self._stem(g, mel), context)
        x = self._encoder_layers(g, x, bias)
        x, bias = self._whole_groups(g, x, bias)
        self._cross_outputs(g, x)
        g.output(bias, "key_bias", _FLOAT, [1, 1, 1, "frames"])
        return g.serialize(metadata)

    def _pad(self, g: Graph, audio: str) -> tuple[str, str]:
        """Silence up to the context and a little more; also the context itself, in frames of 20 ms, int64 (1,)."""
        samples = g.op("Shape", audio, start=1, end=2)
        frames = g.op("Div", g.op("Add", samples, g.constant([SAMPLES_PER_FRAME - 1])), g.constant([SAMPLES_PER_FRAME]))
        wanted = g.op("Add", frames, g.constant([MARGIN_FRAMES]))
        context = g.op("Min", wanted, g.constant([self.spec.n_audio_ctx]))
        total = g.op("Mul", g.op("Add", context, g.constant([_SPARE_FRAMES])), g.constant([SAMPLES_PER_FRAME]))
        zero = g.constant([0])
        pads = g.op("Concat", zero, zero, zero, g.op("Sub", total, samples), axis=0)
        return g.op("Pad", audio, pads), context

    def _stem(self, g: Graph, mel: str) -> str:
        """Two convolutions: (1, mels, 2 t) -> (1, t, width)."""
        x = mel
        for name, stride in (("conv1", 1), ("conv2", 2)):
            kernel = self._table(g, f"encoder.{name}.weight")
            bias = g.weight(f"encoder.{name}.bias", self.load(f"model.encoder.{name}.bias"))
            x = g.op("Gelu", g.op("Conv", x, kernel, bias, pads=[1, 1], strides=[stride], kernel_shape=[3]))
        return g.op("Transpose", x, perm=[0, 2, 1])

    def _with_silent_tail(self, g: Graph, x: str, context: str) -> tuple[str, str]:
        """Cuts the stem's output to the context and appends the compressed silence; also the bias of every key."""
        n = self.spec.n_audio_ctx
        zero, one = g.constant([0]), g.constant([1])
        speech = g.op("Slice", x, zero, context, one)
        quiet = g.op("Sub", context, g.constant([MARGIN_FRAMES // 2]))  # amid the margin, wherever there is a tail
        silence = g.op("Slice", x, quiet, g.op("Add", quiet, one), one)
        positions = g.op("Cast", self._table(g, "encoder.embed_positions.weight", fold=False), to=_FLOAT)
        here = g.op("Slice", positions, zero, context, zero)
        axis = g.constant([0])
        start = g.op("Squeeze", g.op("Add", context, g.constant([TAIL_STRIDE // 2])), axis)
        kept = g.op("Range", start, g.constant(n), g.constant(TAIL_STRIDE))
        tail = g.op("Add", silence, g.op("Gather", positions, kept))
        frames = g.op("Concat", g.op("Add", speech, here), tail, axis=1)
        return frames, self._key_bias(g, context, kept)

    def _key_bias(self, g: Graph, context: str, kept: str) -> str:
        n = g.op("Cast", g.op("Sub", g.constant([self.spec.n_audio_ctx]), context), to=_FLOAT)
        count = g.op("Shape", kept)
        divisor = g.op("Max", g.op("Cast", count, to=_FLOAT), g.constant([1], np.float32))
        weight = g.op("Log", g.op("Max", g.op("Div", n, divisor), g.constant([1], np.float32)))
        zeros = g.op("Expand", g.constant([0], np.float32), context)
        row = g.op("Concat", zeros, g.op("Expand", weight, count), axis=0)
        return g.op("Unsqueeze", row, g.constant([0, 1, 2]))

    def _encoder_layers(self, g: Graph, x: str, bias: str) -> str:
        spec = self.spec
        frames = g.op("Shape", x, start=1, end=2)
        square = g.op("Concat", g.constant([1, 1]), frames, frames, axis=0)
        wide_bias = g.op("Expand", bias, square)
        for i in range(spec.encoder_layers):
            layer = f"encoder.layers.{i}"
            normed = self._norm(g, x, f"{layer}.self_attn_layer_norm")
            attended = self._encoder_attention(g, normed, layer, wide_bias)
            normed, x = self._skip_norm(g, attended, x, f"{layer}.final_layer_norm")
            x = g.op("Add", x, self._mlp(g, normed, layer, self.recipe.encoder))
        return self._norm(g, x, "encoder.layer_norm")

    def _encoder_attention(self, g: Graph, x: str, layer: str, bias: str) -> str:
        spec, width = self.spec, self.spec.encoder_head_width
        qkv = self._qkv(g, x, f"{layer}.self_attn", self.recipe.encoder)
        sizes = _groups(spec.encoder_heads, _HEADS_AT_ONCE)
        # Straight into the parts of query, key and value: a split of a split would hold them twice.
        parts = g.multi("Split", qkv, g.constant([n * width for n in sizes] * 3), outs=3 * len(sizes), axis=-1)
        outs = [
            g.op("MultiHeadAttention", *parts[i :: len(sizes)], "", "", bias, domain=MICROSOFT, num_heads=size)
            for i, size in enumerate(sizes)
        ]
        joined = g.op("Concat", *outs, axis=-1) if len(outs) > 1 else outs[0]
        return self._linear(g, joined, f"{layer}.self_attn.out_proj", self.recipe.encoder)

    def _whole_groups(self, g: Graph, x: str, bias: str) -> tuple[str, str]:
        """Keys up to a multiple of `_KEYS_TOGETHER`, those added hidden.

        A sum over keys then adds the same values in the same lanes whether a clip is alone or padded further in a
        batch, so that its text is the same to the last bit.
        """
        count, zero = g.op("Shape", x, start=1, end=2), g.constant([0])
        missing = g.op("Mod", g.op("Neg", count), g.constant([_KEYS_TOGETHER]))
        rows = g.op("Concat", zero, zero, zero, zero, missing, zero, axis=0)
        columns = g.op("Concat", *[zero] * 7, missing, axis=0)
        return g.op("Pad", x, rows), g.op("Pad", bias, columns, g.constant(_HIDDEN, np.float32))

    def _cross_outputs(self, g: Graph, x: str) -> None:
        spec = self.spec
        heads, width = spec.decoder_heads, spec.decoder_head_width
        shape = g.constant([0, 0, heads, width])
        for i in range(spec.decoder_layers):
            layer = f"decoder.layers.{i}.encoder_attn"
            key = g.op("Reshape", self._linear(g, x, f"{layer}.k_proj", self.recipe.encoder), shape)
            value = g.op("Reshape", self._linear(g, x, f"{layer}.v_proj", self.recipe.encoder), shape)
            # The query's 1/sqrt(width) is folded in here, where it is paid once.
            key = g.op("Mul", key, g.constant(1 / math.sqrt(width), np.float32))
            key = g.op("Transpose", key, perm=[0, 2, 3, 1])
            value = g.op("Transpose", value, perm=[0, 2, 1, 3])
            g.output(key, f"cross_key_{i}", _FLOAT, [1, heads, width, "frames"])
            g.output(value, f"cross_value_{i}", _FLOAT, [1, heads, "frames", width])

    # -- decoder ---------------------------------------------------------------------------------------------------

    def decoder(self, metadata: dict[str, str]) -> bytes:
        """The serialized decoder.

        Inputs: `tokens` (batch, length) int64; `total_length` (batch,) int32, tokens in the cache after this run;
        `logit_positions` (p,) int64, which of `length` to give logits for; `past_key_i`, `past_value_i`
        (batch, heads, capacity, head width) float32; the encoder's `cross_key_i`, `cross_value_i`, `key_bias` with one
        row for each in the batch, or a single row that all share. Outputs: `logits` (batch, p, vocabulary) float32;
        `present_key_i`, `present_value_i` as the past; `alignment` (batch, alignment heads, length, frames) float32,
        the cross-attention weights.
        """
        g = Graph("decoder", self.weights)
        tokens = g.input("tokens", TensorProto.INT64, ["batch", "length"])
        total = g.input("total_length", TensorProto.INT32, ["batch"])
        wanted = g.input("logit_positions", TensorProto.INT64, ["logits"])
        bias = g.input("key_bias", _FLOAT, ["audio", 1, 1, "frames"])
        embedding = TiedEmbedding(self.recipe.head, self.load("model.decoder.embed_tokens.weight"))
        x = g.op("Add", embedding.lookup(g, tokens), self._positions(g, tokens, total))
        lengths = (g.op("Sub", total, g.constant([1], np.int32)), g.op("ReduceMax", total, keepdims=0))
        alignment: list[str] = []
        for i in range(self.spec.decoder_layers):
            x, weights = self._decoder_layer(g, x, i, lengths, bias)
            alignment += [self._pick_heads(g, weights, i)] if self._heads_of(i) else []
        last = g.op("Gather", x, wanted, axis=1)
        logits = embedding.head(g, self._norm(g, last, "decoder.layer_norm"))
        g.output(logits, "logits", _FLOAT, ["batch", "logits", self.spec.vocab_size])
        g.output(g.op("Concat", *alignment, axis=1), "alignment", _FLOAT, ["batch", "align", "length", "frames"])
        return g.serialize(metadata)

    def _positions(self, g: Graph, tokens: str, total: str) -> str:
        length = g.op("Squeeze", g.op("Shape", tokens, start=1, end=2), g.constant([0]))
        steps = g.op("Range", g.constant(0), length, g.constant(1))
        first = g.op("Sub", g.op("Cast", total, to=TensorProto.INT64), length)
        index = g.op("Add", g.op("Unsqueeze", first, g.constant([1])), steps)
        table = self._table(g, "decoder.embed_positions.weight", fold=False)
        return g.op("Cast", g.op("Gather", table, index), to=_FLOAT)

    def _decoder_layer(self, g: Graph, x: str, i: int, lengths: tuple[str, str], bias: str) -> tuple[str, str]:
        layer, linear = f"decoder.layers.{i}", self.recipe.decoder
        normed = self._norm(g, x, f"{layer}.self_attn_layer_norm")
        normed, x = self._skip_norm(
            g, self._self_attention(g, normed, i, lengths), x, f"{layer}.encoder_attn_layer_norm"
        )
        attended, weights = self._cross_attention(g, normed, i, bias)
        normed, x = self._skip_norm(g, attended, x, f"{layer}.final_layer_norm")
        return g.op("Add", x, self._mlp(g, normed, layer, linear)), weights

    def _self_attention(self, g: Graph, x: str, i: int, lengths: tuple[str, str]) -> str:
        heads, width = self.spec.decoder_heads, self.spec.decoder_head_width
        qkv = self._qkv(g, x, f"decoder.layers.{i}.self_attn", self.recipe.decoder)
        q, k, v = g.multi("Split", qkv, outs=3, axis=-1, num_outputs=3)
        shape: list[int | str] = ["batch", heads, "capacity", width]
        past = [g.input(f"past_{kind}_{i}", _FLOAT, shape) for kind in ("key", "value")]
        present = [f"present_{kind}_{i}" for kind in ("key", "value")]
        attended, *_ = g.multi(
            "GroupQueryAttention", q, k, v, *past, *lengths,
            outs=[f"self_attn_{i}", *present], domain=MICROSOFT, num_heads=heads, kv_num_heads=heads,
        )  # fmt: skip
        for name in present:
            g.declare_output(name, _FLOAT, shape)
        return self._linear(g, attended, f"decoder.layers.{i}.self_attn.out_proj", self.recipe.decoder)

    def _cross_attention(self, g: Graph, x: str, i: int, bias: str) -> tuple[str, str]:
        heads, width = self.spec.decoder_heads, self.spec.decoder_head_width
        layer = f"decoder.layers.{i}.encoder_attn"
        key = g.input(f"cross_key_{i}", _FLOAT, ["audio", heads, width, "frames"])
        value = g.input(f"cross_value_{i}", _FLOAT, ["audio", heads, "frames", width])
        query = self._linear(g, x, f"{layer}.q_proj", self.recipe.decoder)
        query = g.op("Reshape", query, g.constant([0, 0, heads, width]))
        query = g.op("Transpose", query, perm=[0, 2, 1, 3])
        weights = g.op("Softmax", g.op("Add", g.op("MatMul", query, key), bias), axis=-1)
        mixed = g.op("Transpose", g.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        joined = g.op("Reshape", mixed, g.constant([0, 0, heads * width]))
        return self._linear(g, joined, f"{layer}.out_proj", self.recipe.decoder), weights

    def _heads_of(self, layer: int) -> list[int]:
        return [head for at, head in self.spec.alignment_heads if at == layer]

    def _pick_heads(self, g: Graph, weights: str, layer: int) -> str:
        return g.op("Gather", weights, g.constant(self._heads_of(layer)), axis=1)

    # -- shared ----------------------------------------------------------------------------------------------------

    def _linear(self, g: Graph, x: str, name: str, linear: Linear) -> str:
        bias = None if name.endswith("k_proj") else self.load(f"model.{name}.bias")
        return linear.emit(g, x, name, self.load(f"model.{name}.weight"), bias)

    def _qkv(self, g: Graph, x: str, name: str, linear: Linear) -> str:
        """Query, key and value side by side from one multiplication: the activations are quantized and read once."""
        weight = np.concatenate([self.load(f"model.{name}.{part}_proj.weight") for part in "qkv"])
        query_bias, value_bias = (self.load(f"model.{name}.{part}_proj.bias") for part in "qv")
        bias = np.concatenate([query_bias, np.zeros_like(query_bias), value_bias])
        return linear.emit(g, x, f"{name}.qkv", weight, bias)

    def _mlp(self, g: Graph, x: str, layer: str, linear: Linear) -> str:
        return self._linear(g, g.op("Gelu", self._linear(g, x, f"{layer}.fc1", linear)), f"{layer}.fc2", linear)

    def _norm_weights(self, g: Graph, name: str) -> list[str]:
        return [g.weight(f"{name}.{part}", self.load(f"model.{name}.{part}")) for part in ("weight", "bias")]

    def _norm(self, g: Graph, x: str, name: str) -> str:
        return g.op("LayerNormalization", x, *self._norm_weights(g, name), epsilon=1e-5)

    def _skip_norm(self, g: Graph, x: str, skip: str, name: str) -> tuple[str, str]:
        """Layer norm of x + skip, and the sum itself.

        Two plain nodes: the fused SkipLayerNormalization took seven times as long on a CPU.
        """
        total = g.op("Add", x, skip)
        return self._norm(g, total, name), total

    def _table(self, g: Graph, name: str, fold: bool = True) -> str:
        """A float table, in half precision where the recipe says so; `fold` widens it when the session loads."""
        table = self.load(f"model.{name}")
        if not self.recipe.half_tables:
            return g.weight(name, table)
        stored = g.weight(name, table.astype(np.float16))
        return g.op("Cast", stored, to=_FLOAT) if fold else stored


def _groups(total: int, most: int) -> list[int]:
    """`total` in parts of at most `most`."""
    return [min(most, total - start) for start in range(0, total, most)]
