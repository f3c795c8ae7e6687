"""Whisper as two graphs of a `.tflite` file: `encoder` (samples in, cross-attention keys and values out) and `decoder`
(tokens in, logits out).

Knows Whisper's architecture (Radford et al. 2022, arXiv 2212.04356) and the operators that run it fast on a CPU.
Knows nothing of where weights come from, and decides no precision (`recipe.py` does).

What is heard is what the ONNX graphs hear (`lowerings/onnx/whisper.py`, docs/decisions.md): the audio, half a second of
silence, and every `TAIL_STRIDE`-th frame of the silence up to 30 s, which stands for its neighbours. LiteRT computes no
shapes that its fast kernels follow, so that the engine says which frames those are.

Encoder.  `audio` (1, n) float32 at 16 kHz, n = 320 * (frames heard as they are + 2), silent at the end; `frames` (f,)
int32, which frame of 20 ms each key comes from; `positions` (f,) int32, at which place in time it stands; `key_bias`
(1, 1, 1, f) float32, what is added to the scores of each. Out: `cross_key_i`, `cross_value_i` (1, heads, f, head width)
float32 for every decoder layer i; keys have the query's 1 / sqrt(head width) in them.

Decoder.  `tokens` (t,) int32 and their `token_positions` (t,) int32; `past_key_i`, `past_value_i` (1, heads, capacity,
head width) float32, where the engine keeps what `key_i` and `value_i` of earlier runs gave; `past_bias`
(1, 1, 1, capacity) float32, 0 where there is a past and -1e9 elsewhere; `new_bias` (1, 1, t, t) float32, the same for
what the new tokens see of each other; `logit_positions` (p,) int32, which of t to give logits for; the encoder's
`cross_key_i`, `cross_value_i` and `key_bias`. Out: `logits` (1, p, vocabulary), `key_i`, `value_i` (1, heads, t, head
width) of the new tokens, `alignment` (1, alignment heads, t, f), the cross-attention's weights.
"""

import math
from collections.abc import Callable

import numpy as np

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.litert.graph import Graph, Model
from sottovoce_compiler.lowerings.litert.layers import (
    Float,
    Half,
    binary,
    concat,
    conv,
    cut,
    gather,
    gelu,
    layer_norm,
    linear,
    lookup,
    matmul,
    pad,
    reduce,
    reshape,
    self_attention,
    softmax,
    split,
    table,
    transpose,
    unary,
)
from sottovoce_compiler.lowerings.litert.recipe import Recipe
from sottovoce_compiler.lowerings.litert.stores import Store
from sottovoce_compiler.lowerings.onnx.mel import HOP, N_FFT, fourier_basis, mel_filters

Load = Callable[[str], Float]  # tensor name in Hugging Face's naming -> float32 array

_BLOCK = 80  # samples; a window is five of them, a hop two, so that a convolution reads them as channels


class WhisperLowering:
    """Builds both graphs over one file of weights."""

    def __init__(self, spec: WhisperSpec, load: Load, recipe: Recipe, model: Model) -> None:
        self.spec, self.load, self.recipe, self.model = spec, load, recipe, model

    # -- encoder ---------------------------------------------------------------------------------------------------

    def encoder(self) -> Graph:
        """See above."""
        spec, g = self.spec, self.model.graph("encoder")
        audio = g.input("audio", (1, -1))
        frames, positions = (g.input(name, (-1,), "int32") for name in ("frames", "positions"))
        bias = g.input("key_bias", (1, 1, 1, -1))
        stem = reshape(g, self._stem(g, self._log_mel(g, audio)), (-1, spec.width))
        places = gather(g, self._table(g, "encoder.embed_positions.weight"), positions)
        x = binary(g, "ADD", gather(g, stem, frames), places)
        for i in range(spec.encoder_layers):
            x = self._encoder_layer(g, x, f"encoder.layers.{i}", bias)
        x = self._norm(g, x, "encoder.layer_norm")
        for i in range(spec.decoder_layers):
            layer = f"decoder.layers.{i}.encoder_attn"
            key = self._linear(g, x, f"{layer}.k_proj", self.recipe.encoder, self._query_scale)
            value = self._linear(g, x, f"{layer}.v_proj", self.recipe.encoder)
            g.output(self._heads_first(g, key, spec.decoder_heads), f"cross_key_{i}")
            g.output(self._heads_first(g, value, spec.decoder_heads), f"cross_value_{i}")
        return g

    def _log_mel(self, g: Graph, audio: int) -> int:
        """(1, n) samples -> (1, 1, t, mels), t of 10 ms; the definition is cited in `lowerings/onnx/mel.py`."""
        half = N_FFT // 2
        padded = pad(g, pad(g, audio, 1, half, 0, "MIRROR_PAD"), 1, 0, half - HOP)
        blocks = reshape(g, padded, (1, 1, -1, _BLOCK))
        basis = fourier_basis().reshape(-1, N_FFT // _BLOCK, _BLOCK).transpose(0, 2, 1)
        spectrum = conv(g, blocks, "mel.fourier", np.ascontiguousarray(basis), None, HOP // _BLOCK)
        filters = mel_filters(self.spec.n_mels)[0]
        power = binary(g, "MUL", spectrum, spectrum)
        mel = linear(g, power, "mel.filters", np.concatenate([filters, filters], axis=1))
        logged = unary(g, "LOG", binary(g, "MAXIMUM", mel, g.constant(1e-10)))
        decades = binary(g, "MUL", logged, g.constant(1 / math.log(10)))
        # Nothing follows the last frame of the longest context: its convolutions are padded there, as in training.
        decades = cut(g, decades, 2, 0, 2 * self.spec.n_audio_ctx, g.shapes[decades])
        floor = binary(g, "SUB", reduce(g, "REDUCE_MAX", decades, [1, 2, 3]), g.constant(8))
        clipped = binary(g, "MAXIMUM", decades, floor)
        return binary(g, "MUL", binary(g, "ADD", clipped, g.constant(4)), g.constant(0.25))

    def _stem(self, g: Graph, mel: int) -> int:
        """Two convolutions: (1, 1, 2 t, mels) -> (1, 1, t, width)."""
        x = mel
        for name, stride in (("conv1", 1), ("conv2", 2)):
            kernel, bias = self._stored(f"encoder.{name}.weight"), self.load(f"model.encoder.{name}.bias")
            x = gelu(g, conv(g, pad(g, x, 2, 1, 1), f"encoder.{name}", kernel, bias, stride))
        return x

    def _encoder_layer(self, g: Graph, x: int, layer: str, bias: int) -> int:
        spec = self.spec
        qkv = self._qkv(g, self._norm(g, x, f"{layer}.self_attn_layer_norm"), f"{layer}.self_attn", self.recipe.encoder)
        q, k, v = split(g, self._heads_first(g, qkv, 3 * spec.encoder_heads), [spec.encoder_heads] * 3, 1)
        mixed = self._attended(g, q, k, v, bias)
        x = binary(g, "ADD", x, self._joined(g, mixed, f"{layer}.self_attn", self.recipe.encoder))
        return self._feed_forward(g, x, layer, self.recipe.encoder)

    def _attended(self, g: Graph, q: int, k: int, v: int, bias: int) -> int:
        """Attention, one head after the other: scores of 30 s are 9 MB a head, and all at once took no less time."""
        ones = [1] * self.spec.encoder_heads
        parts = []
        for head_q, head_k, head_v in zip(*(split(g, x, ones, 1) for x in (q, k, v)), strict=True):
            scores = binary(g, "ADD", matmul(g, head_q, head_k, transposed=True), bias)
            parts.append(matmul(g, softmax(g, scores), head_v))
        return concat(g, parts, 1)

    # -- decoder ---------------------------------------------------------------------------------------------------

    def decoder(self) -> Graph:
        """See above."""
        spec, g = self.spec, self.model.graph("decoder")
        tokens, places, wanted = (
            g.input(name, (-1,), "int32") for name in ("tokens", "token_positions", "logit_positions")
        )
        biases = g.input("past_bias", (1, 1, -1, -1)), g.input("new_bias", (1, 1, -1, -1))
        key_bias = g.input("key_bias", (1, 1, -1, -1))
        embedding = self.recipe.head(self.load("model.decoder.embed_tokens.weight"))
        position = gather(g, self._table(g, "decoder.embed_positions.weight"), places)
        x = binary(g, "ADD", lookup(g, "embedding", embedding, tokens), position)
        alignment: list[int] = []
        for i in range(spec.decoder_layers):
            x, weights = self._decoder_layer(g, x, i, biases, key_bias)
            if heads := [head for layer, head in spec.alignment_heads if layer == i]:
                alignment.append(gather(g, weights, g.constant(heads, "int32"), 1))
        last = self._norm(g, gather(g, x, wanted), "decoder.layer_norm")
        g.output(reshape(g, linear(g, last, "embedding", embedding), (1, -1, spec.vocab_size)), "logits")
        g.output(concat(g, alignment, 1), "alignment")
        return g

    def _decoder_layer(self, g: Graph, x: int, i: int, biases: tuple[int, int], key_bias: int) -> tuple[int, int]:
        layer, store, heads = f"decoder.layers.{i}", self.recipe.decoder, self.spec.decoder_heads
        qkv = self._qkv(g, self._norm(g, x, f"{layer}.self_attn_layer_norm"), f"{layer}.self_attn", store)
        q, k, v = split(g, self._heads_first(g, qkv, 3 * heads), [heads] * 3, 1)
        g.output(k, f"key_{i}")
        g.output(v, f"value_{i}")
        shape = (1, heads, -1, self.spec.decoder_head_width)
        past = g.input(f"past_key_{i}", shape), g.input(f"past_value_{i}", shape)
        mixed = self_attention(g, (q, k, v), past, biases)
        x = binary(g, "ADD", x, self._joined(g, mixed, f"{layer}.self_attn", store))
        normed = self._norm(g, x, f"{layer}.encoder_attn_layer_norm")
        query = self._heads_first(g, self._linear(g, normed, f"{layer}.encoder_attn.q_proj", store), heads)
        key, value = g.input(f"cross_key_{i}", shape), g.input(f"cross_value_{i}", shape)
        weights = softmax(g, binary(g, "ADD", matmul(g, query, key, transposed=True), key_bias))
        x = binary(g, "ADD", x, self._joined(g, matmul(g, weights, value), f"{layer}.encoder_attn", store))
        return self._feed_forward(g, x, layer, store), weights

    # -- shared ----------------------------------------------------------------------------------------------------

    @property
    def _query_scale(self) -> float:
        return 1 / math.sqrt(self.spec.decoder_head_width)

    def _heads_first(self, g: Graph, x: int, heads: int) -> int:
        """(t, heads * width) -> (1, heads, t, width)."""
        return transpose(g, reshape(g, x, (1, -1, heads, g.shapes[x][-1] // heads)), (0, 2, 1, 3))

    def _joined(self, g: Graph, mixed: int, name: str, store: Store) -> int:
        """(1, heads, t, width) -> (t, heads * width), through the last matrix of an attention."""
        rows = reshape(g, transpose(g, mixed, (0, 2, 1, 3)), (-1, self.spec.width))
        return self._linear(g, rows, f"{name}.out_proj", store)

    def _feed_forward(self, g: Graph, x: int, layer: str, store: Store) -> int:
        normed = self._norm(g, x, f"{layer}.final_layer_norm")
        wide = gelu(g, self._linear(g, normed, f"{layer}.fc1", store))
        return binary(g, "ADD", x, self._linear(g, wide, f"{layer}.fc2", store))

    def _linear(self, g: Graph, x: int, name: str, store: Store, scale: float = 1.0) -> int:
        bias = None if name.endswith("k_proj") else self.load(f"model.{name}.bias")
        return linear(g, x, name, store(self.load(f"model.{name}.weight") * np.float32(scale)), bias)

    def _qkv(self, g: Graph, x: int, name: str, store: Store) -> int:
        """Query, key and value side by side from one multiplication; the scores' scale is in the query."""
        heads = self.spec.encoder_heads if name.startswith("encoder") else self.spec.decoder_heads
        scale = np.float32(1 / math.sqrt(self.spec.width // heads))
        q, k, v = (self.load(f"model.{name}.{part}_proj.weight") for part in "qkv")
        query_bias, value_bias = (self.load(f"model.{name}.{part}_proj.bias") for part in "qv")
        bias = np.concatenate([query_bias * scale, np.zeros_like(query_bias), value_bias])
        return linear(g, x, f"{name}.qkv", store(np.concatenate([q * scale, k, v])), bias)

    def _norm(self, g: Graph, x: int, name: str) -> int:
        gamma, beta = (g.weight(f"{name}.{part}", self.load(f"model.{name}.{part}")) for part in ("weight", "bias"))
        return layer_norm(g, x, gamma, beta)

    def _stored(self, name: str) -> Float | Half:
        """A float table, in half precision where the recipe says so."""
        found = self.load(f"model.{name}")
        return found.astype(np.float16) if self.recipe.half_tables else found

    def _table(self, g: Graph, name: str) -> int:
        return table(g, name, self._stored(name))
