"""Whisper as the three programs that WhisperKit's apps load: MelSpectrogram, AudioEncoder and TextDecoder.

Knows Whisper's architecture (Radford et al. 2022, arXiv 2212.04356), the names and layouts that those apps expect
(argmaxinc/whisperkittools), and the layout that the Neural Engine is fast in: channels first, (1, channels, 1,
positions), with every linear a convolution of one point (Apple, "Deploying Transformers on the Apple Neural Engine",
2022). Knows nothing of precision.

The decoder takes one token at a time. Its cache is the caller's: it is given all of it and gives the new column of each
layer, and the caller writes it where `kv_cache_update_mask` is 1.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from coremltools.converters.mil import Builder as mb

from sottovoce.engines.coreml_speech import DECODER, ENCODER, MEL
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.coreml.program import INT, Constants, Var, function, tensor
from sottovoce_compiler.lowerings.coreml.weights import Float, Stored
from sottovoce_compiler.lowerings.onnx.mel import HOP, N_FFT, SPECTRUM_BINS, fourier_basis, mel_filters

Load = Callable[[str], Float]  # tensor name in Hugging Face's naming -> float32 array

_SAMPLES_PER_FRAME = 2 * HOP


@dataclass(frozen=True, slots=True)
class Parts:
    """How the matrices of each part are stored; the head is the token embedding too."""

    encoder: Stored
    decoder: Stored
    head: Stored


@dataclass(frozen=True)
class WhisperPrograms:
    """Builds the three for one checkpoint and one `system` (see `precision.deployment`)."""

    spec: WhisperSpec
    load: Load
    parts: Parts
    system: str

    def all(self) -> Mapping[str, Callable[[], object]]:
        """By name, what builds each."""
        return {MEL: self.mel, ENCODER: self.encoder, DECODER: self.decoder}

    # -- spectrogram -----------------------------------------------------------------------------------------------

    def mel(self) -> object:
        """`audio` (samples,) float16, 30 s at 16 kHz -> `melspectrogram_features` (1, mels, 1, frames) float16.

        In float32 throughout: a power spectrum spans more than float16 can hold.
        """
        samples = self.spec.n_audio_ctx * _SAMPLES_PER_FRAME
        return function(self.system, {"audio": tensor([samples])}, self._mel)

    def _mel(self, audio: Var) -> dict[str, Var]:
        const = Constants()
        frames, half_window = 2 * self.spec.n_audio_ctx, N_FFT // 2
        x = mb.reshape(x=mb.cast(x=audio, dtype="fp32"), shape=[1, 1, -1])
        x = mb.pad(x=x, pad=[0, 0, 0, 0, half_window, half_window], mode="reflect")
        spectrum = mb.conv(x=x, weight=const("fourier", fourier_basis()), strides=[HOP], pad_type="valid")
        # One window more than there are frames: the last is dropped, as in training.
        spectrum = mb.slice_by_index(x=spectrum, begin=[0, 0, 0], end=[1, 2 * SPECTRUM_BINS, frames])
        real, imaginary = mb.split(x=mb.square(x=spectrum), num_splits=2, axis=1)
        mel = mb.matmul(x=const("filters", mel_filters(self.spec.n_mels)), y=mb.add(x=real, y=imaginary))
        logged = mb.log(x=mb.maximum(x=mel, y=np.float32(1e-10)), epsilon=np.float32(1e-30))
        decades = mb.mul(x=logged, y=np.float32(1 / math.log(10)))
        loudest = mb.reduce_max(x=decades, axes=[1, 2], keep_dims=True)
        clipped = mb.maximum(x=decades, y=mb.sub(x=loudest, y=np.float32(8)))
        scaled = mb.mul(x=mb.add(x=clipped, y=np.float32(4)), y=np.float32(0.25))
        four = mb.reshape(x=scaled, shape=[1, self.spec.n_mels, 1, frames])
        return {"melspectrogram_features": mb.cast(x=four, dtype="fp16")}

    # -- encoder ---------------------------------------------------------------------------------------------------

    def encoder(self) -> object:
        """`melspectrogram_features` -> `encoder_output_embeds` (1, width, 1, frames / 2) float16."""
        shape = [1, self.spec.n_mels, 1, 2 * self.spec.n_audio_ctx]
        return function(self.system, {"melspectrogram_features": tensor(shape)}, self._encoder)

    def _encoder(self, melspectrogram_features: Var) -> dict[str, Var]:
        spec = self.spec
        layers = Layers(self, Constants(), self.parts.encoder)
        x = layers.stem(melspectrogram_features, "encoder.conv1", stride=1)
        x = layers.stem(x, "encoder.conv2", stride=2)
        positions = self.load("model.encoder.embed_positions.weight").T
        x = mb.add(x=x, y=layers.const.vector("encoder_positions", positions[None, :, None]))
        for i in range(spec.encoder_layers):
            name = f"encoder.layers.{i}"
            normed = layers.norm(x, f"{name}.self_attn_layer_norm")
            query, key, value = (layers.linear(normed, f"{name}.self_attn.{part}_proj") for part in "qkv")
            attended, _ = layers.attention(query, key, value, spec.encoder_heads)
            x = mb.add(x=x, y=layers.linear(attended, f"{name}.self_attn.out_proj"))
            x = mb.add(x=x, y=layers.feed_forward(layers.norm(x, f"{name}.final_layer_norm"), name))
        return {"encoder_output_embeds": layers.norm(x, "encoder.layer_norm")}

    # -- decoder ---------------------------------------------------------------------------------------------------

    def decoder(self) -> object:
        """One step. `input_ids` and `cache_length` (1,) int32; `key_cache`, `value_cache` (1, layers * width, 1,
        text context); `kv_cache_update_mask` (1, text context), 1 where this token goes; `encoder_output_embeds`;
        `decoder_key_padding_mask` (1, text context), added to the scores -> `logits` (1, 1, vocabulary),
        `key_cache_updates`, `value_cache_updates` (1, layers * width, 1, 1), `alignment_heads_weights` (1, frames), the
        mean over the heads that follow the audio. All float16 but the first two."""
        spec = self.spec
        cache, mask = [1, spec.decoder_layers * spec.width, 1, spec.n_text_ctx], [1, spec.n_text_ctx]
        inputs = {
            **{"input_ids": tensor([1], INT), "cache_length": tensor([1], INT)},
            **{"key_cache": tensor(cache), "value_cache": tensor(cache), "kv_cache_update_mask": tensor(mask)},
            **{"encoder_output_embeds": tensor([1, spec.width, 1, spec.n_audio_ctx])},
            **{"decoder_key_padding_mask": tensor(mask)},
        }
        return function(self.system, inputs, self._decoder)

    def _decoder(
        self,
        input_ids: Var,
        cache_length: Var,
        key_cache: Var,
        value_cache: Var,
        kv_cache_update_mask: Var,
        encoder_output_embeds: Var,
        decoder_key_padding_mask: Var,
    ) -> dict[str, Var]:
        spec = self.spec
        layers = Layers(self, Constants(), self.parts.decoder)
        table = layers.const.matrix("embed_tokens", self.load("model.decoder.embed_tokens.weight"), self.parts.head)
        positions = layers.const.vector("decoder_positions", self.load("model.decoder.embed_positions.weight"))
        x = mb.add(x=layers.rows(table, input_ids), y=layers.rows(positions, cache_length))
        x = mb.reshape(x=x, shape=[1, spec.width, 1, 1])
        here, hidden = (
            mb.reshape(x=mask, shape=[1, 1, 1, spec.n_text_ctx])
            for mask in (kv_cache_update_mask, decoder_key_padding_mask)
        )
        caches = [_split(cache, spec.decoder_layers) for cache in (key_cache, value_cache)]
        step = _Step(layers, encoder_output_embeds, here, mb.sub(x=np.float16(1), y=here), hidden)
        for i in range(spec.decoder_layers):
            x = step.layer(x, i, caches[0][i], caches[1][i])
        x = mb.reshape(x=layers.norm(x, "decoder.layer_norm"), shape=[1, 1, spec.width])
        aligned = mb.concat(values=step.aligned, axis=1)
        return {
            "logits": mb.linear(x=x, weight=table),
            "key_cache_updates": mb.concat(values=step.keys, axis=1),
            "value_cache_updates": mb.concat(values=step.values, axis=1),
            "alignment_heads_weights": mb.reduce_mean(x=aligned, axes=[1, 2], keep_dims=False),
        }


@dataclass(frozen=True)
class _Step:
    """One token through the decoder's layers, and what is gathered from each: its key, its value, and the attention of
    the heads that follow the audio. `here` is 1 at the token's place, `past` elsewhere; `hidden` is added to scores."""

    layers: "Layers"
    audio: Var
    here: Var
    past: Var
    hidden: Var
    keys: list[Var] = field(default_factory=list)
    values: list[Var] = field(default_factory=list)
    aligned: list[Var] = field(default_factory=list)

    def layer(self, x: Var, i: int, key_cache: Var, value_cache: Var) -> Var:
        """Layer i."""
        layers, name = self.layers, f"decoder.layers.{i}"
        x = mb.add(x=x, y=self._self_attention(x, name, key_cache, value_cache))
        x = mb.add(x=x, y=self._cross_attention(x, i))
        return mb.add(x=x, y=layers.feed_forward(layers.norm(x, f"{name}.final_layer_norm"), name))

    def _self_attention(self, x: Var, name: str, key_cache: Var, value_cache: Var) -> Var:
        layers = self.layers
        normed = layers.norm(x, f"{name}.self_attn_layer_norm")
        query, key, value = (layers.linear(normed, f"{name}.self_attn.{part}_proj") for part in "qkv")
        self.keys.append(key)
        self.values.append(value)
        whole = [
            mb.add(x=mb.mul(x=cache, y=self.past), y=mb.mul(x=column, y=self.here))
            for cache, column in ((key_cache, key), (value_cache, value))
        ]
        heads = layers.programs.spec.decoder_heads
        attended, _ = layers.attention(query, whole[0], whole[1], heads, self.hidden)
        return layers.linear(attended, f"{name}.self_attn.out_proj")

    def _cross_attention(self, x: Var, i: int) -> Var:
        layers, spec, name = self.layers, self.layers.programs.spec, f"decoder.layers.{i}"
        query = layers.linear(layers.norm(x, f"{name}.encoder_attn_layer_norm"), f"{name}.encoder_attn.q_proj")
        key, value = (layers.linear(self.audio, f"{name}.encoder_attn.{part}_proj") for part in "kv")
        attended, weights = layers.attention(query, key, value, spec.decoder_heads)
        self.aligned.extend(_head(weights, head) for at, head in spec.alignment_heads if at == i)
        return layers.linear(attended, f"{name}.encoder_attn.out_proj")


@dataclass(frozen=True)
class Layers:
    """What the layers are made of, emitted into the function being built."""

    programs: WhisperPrograms
    const: Constants
    stored: Stored

    def stem(self, x: Var, name: str, stride: int) -> Var:
        """A convolution over three frames (1, channels, 1, t) -> (1, width, 1, t / stride), and GELU. Kept in float16:
        it has few weights, and a table or a scale of its rows would mix the three."""
        weight = self.programs.load(f"model.{name}.weight")[:, :, None]
        y = mb.conv(
            x=x,
            weight=self.const.vector(_plain(name), weight),
            bias=self.const.vector(f"{_plain(name)}_bias", self.programs.load(f"model.{name}.bias")),
            strides=[1, stride],
            pad_type="custom",
            pad=[0, 0, 1, 1],
        )
        return mb.gelu(x=y, mode="EXACT")

    def linear(self, x: Var, name: str) -> Var:
        """A linear as a convolution of one point; the query's 1 / sqrt(head width) is folded in."""
        weight = self.programs.load(f"model.{name}.weight")
        bias = None if name.endswith("k_proj") else self.programs.load(f"model.{name}.bias")
        if name.endswith("q_proj"):
            assert bias is not None
            scale = np.float32(self._query_scale(name))
            weight, bias = weight * scale, bias * scale
        kernel = self.const.matrix(_plain(name), weight, self.stored, ones=2)
        if bias is None:
            return mb.conv(x=x, weight=kernel, pad_type="valid")
        return mb.conv(x=x, weight=kernel, bias=self.const.vector(f"{_plain(name)}_bias", bias), pad_type="valid")

    def _query_scale(self, name: str) -> float:
        spec = self.programs.spec
        width = spec.encoder_head_width if name.startswith("encoder") else spec.decoder_head_width
        return 1 / math.sqrt(width)

    def attention(self, query: Var, key: Var, value: Var, heads: int, hidden: Var | None = None) -> tuple[Var, Var]:
        """(1, width, 1, m) queries over (1, width, 1, n) keys -> (1, width, 1, m), and the weights (1, heads, m, n).
        `hidden` is added to the scores."""
        width = query.shape[1]
        query, key, value = (
            mb.reshape(x=one, shape=[1, heads, width // heads, one.shape[3]]) for one in (query, key, value)
        )
        scores = mb.matmul(x=query, y=key, transpose_x=True)
        weights = mb.softmax(x=scores if hidden is None else mb.add(x=scores, y=hidden), axis=-1)
        mixed = mb.matmul(x=value, y=weights, transpose_y=True)
        return mb.reshape(x=mixed, shape=[1, width, 1, query.shape[3]]), weights

    def feed_forward(self, x: Var, layer: str) -> Var:
        return self.linear(mb.gelu(x=self.linear(x, f"{layer}.fc1"), mode="EXACT"), f"{layer}.fc2")

    def norm(self, x: Var, name: str) -> Var:
        """Over the channels."""
        gamma, beta = (
            self.const.vector(f"{_plain(name)}_{part}", self.programs.load(f"model.{name}.{part}"))
            for part in ("weight", "bias")
        )
        return mb.layer_norm(x=x, axes=[1], gamma=gamma, beta=beta, epsilon=np.float16(1e-5))

    def rows(self, table: Var, index: Var) -> Var:
        """The rows of a table (n, width) at `index` (1,) -> (1, width)."""
        return mb.gather(x=table, indices=index, axis=0)


def _plain(name: str) -> str:
    """A name as MIL has it."""
    return name.replace(".", "_")


def _split(cache: Var, parts: int) -> list[Var]:
    return [cache] if parts == 1 else list(mb.split(x=cache, num_splits=parts, axis=1))


def _head(weights: Var, head: int) -> Var:
    """(1, 1, 1, n) of (1, heads, 1, n)."""
    _, _, _, count = weights.shape
    return mb.slice_by_index(x=weights, begin=[0, head, 0, 0], end=[1, head + 1, 1, count])
