"""Whisper as it is trained: recordings and texts of any lengths one behind the other, over the operations of
`sottovoce_kernels`.

Knows Whisper's architecture (Radford et al. 2022, arXiv 2212.04356), and that the silence behind a recording is heard
compressed, as in the compiled encoder (`lowerings/onnx/whisper.py`, docs/decisions.md): what is trained is what the
device computes, for a fraction of 30 s. Knows no files, no text and no steps; `whisper_engine` decodes with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as computed_again

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.finetune.batches import LogMel, PackedTokens, SpeechBatch
from sottovoce_compiler.finetune.model import Loss
from sottovoce_compiler.finetune.model.adapted import AdaptedLinear
from sottovoce_compiler.finetune.model.decoder import Kept
from sottovoce_compiler.finetune.model.whisper_layers import DecoderLayer, EncoderLayer, Mix, Norm, Reader
from sottovoce_compiler.lowerings.onnx.whisper import MARGIN_FRAMES, TAIL_STRIDE
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_kernels.attention import attention
from sottovoce_kernels.linear_cross_entropy import linear_cross_entropy
from sottovoce_kernels.segments import Segments


@dataclass(frozen=True, slots=True)
class Encoded:
    """Recordings as the decoder hears them: `frames` (F, width), and what is added to the attention scores of each,
    `bias` (F,) float32, None where all of them are 0."""

    frames: torch.Tensor
    bias: torch.Tensor | None
    segments: Segments


class Run(Protocol):
    """Calls a layer."""

    def __call__(self, layer: nn.Module, *inputs: Any) -> torch.Tensor: ...


class WhisperTraining(nn.Module):
    """Frozen weights with adapters composed on top, names as in transformers' model. A batch's loss is the sum over
    its labelled tokens."""

    def __init__(self, checkpoint: Checkpoint, spec: WhisperSpec, kept: Kept | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.checkpointing = False
        read = Reader(checkpoint, kept or Kept())
        self.encoder = Encoder(read, spec)
        self.decoder = Decoder(read, spec)

    def forward(self, batch: SpeechBatch) -> Loss:
        """The loss of a batch."""
        return Loss(
            linear_cross_entropy(self.hidden(batch), self.decoder.embed_tokens, batch.text.labels), batch.labelled
        )

    def hidden(self, batch: SpeechBatch) -> torch.Tensor:
        """What the head sees of every token: (T, width)."""
        rows: torch.Tensor = self.decoder(batch.text, self.encode(batch.features), self._run)
        return rows

    def encode(self, features: Sequence[LogMel]) -> Encoded:
        """Recordings -> frames, one recording behind the other."""
        encoded: Encoded = self.encoder(features, self._run)
        return encoded

    def linears(self) -> Mapping[str, AdaptedLinear]:
        """Every matrix that an adapter can be attached to, by the name that PEFT knows it by."""
        return {f"model.{name}": layer for name, layer in self.named_modules() if isinstance(layer, AdaptedLinear)}

    def adapted(self) -> Mapping[str, AdaptedLinear]:
        """Those that have one."""
        return {name: layer for name, layer in self.linears().items() if layer.lora is not None}

    def _run(self, layer: nn.Module, *inputs: Any) -> torch.Tensor:
        """What a layer gives; in training with `checkpointing` it is computed again for the backward pass."""
        if self.checkpointing and self.training:
            again: torch.Tensor = computed_again(layer, *inputs, use_reentrant=False)
            return again
        rows: torch.Tensor = layer(*inputs)
        return rows


class Encoder(nn.Module):
    """Log-mel spectrograms -> frames, each recording's silence compressed."""

    def __init__(self, read: Reader, spec: WhisperSpec) -> None:
        super().__init__()
        self.window = spec.n_audio_ctx
        for name in ("conv1", "conv2"):
            for part in ("weight", "bias"):
                self.register_parameter(f"{name}_{part}", read.tensor(f"encoder.{name}.{part}"))
        self.embed_positions = read.tensor("encoder.embed_positions.weight")
        names = (f"encoder.layers.{i}" for i in range(spec.encoder_layers))
        self.layers = nn.ModuleList(EncoderLayer(read, name, spec.encoder_heads) for name in names)
        self.layer_norm = Norm(read, "encoder.layer_norm")
        self.scale = 1 / math.sqrt(spec.encoder_head_width)

    def forward(self, features: Sequence[LogMel], run: Run) -> Encoded:
        """Recordings one behind the other."""
        heard = [self._heard(one) for one in features]
        bias = torch.cat([_key_bias(one.context, self.window) for one in features]).to(heard[0].device)
        segments = Segments.of([len(frames) for frames in heard], heard[0].device)
        encoded = Encoded(torch.cat(heard), bias if bool(bias.any()) else None, segments)
        mix: Mix = partial(
            attention, queries=segments, keys=None, causal=False, scale=self.scale, key_bias=encoded.bias
        )
        x = encoded.frames
        for layer in self.layers:
            x = run(layer, x, mix)
        return Encoded(self.layer_norm(x), encoded.bias, segments)

    def _heard(self, feature: LogMel) -> torch.Tensor:
        """What the layers see of one recording: frames as they are, then every `TAIL_STRIDE`-th of the silence."""
        x, context = self._stem(feature.values), feature.context
        here = x[:context] + self.embed_positions[:context]
        kept = kept_frames(context, self.window)
        if not kept:
            return here
        quiet = context - MARGIN_FRAMES // 2  # amid the margin, wherever there is a tail
        return torch.cat([here, x[quiet] + self.embed_positions[kept.start :: kept.step]])

    def _stem(self, mel: torch.Tensor) -> torch.Tensor:
        """Two convolutions: (mels, 2 t) -> (t, width)."""
        x = mel.to(self.embed_positions.dtype)[None]
        for name, stride in (("conv1", 1), ("conv2", 2)):
            kernel, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
            x = functional.gelu(functional.conv1d(x, kernel, bias, stride=stride, padding=1))
        return x[0].T


class Decoder(nn.Module):
    """Texts one behind the other, each with the recording of the same number."""

    def __init__(self, read: Reader, spec: WhisperSpec) -> None:
        super().__init__()
        self.embed_tokens = read.tensor("decoder.embed_tokens.weight")
        self.embed_positions = read.tensor("decoder.embed_positions.weight")
        names = (f"decoder.layers.{i}" for i in range(spec.decoder_layers))
        self.layers = nn.ModuleList(DecoderLayer(read, name, spec.decoder_heads) for name in names)
        self.layer_norm = Norm(read, "decoder.layer_norm")
        self.scale = 1 / math.sqrt(spec.decoder_head_width)

    def forward(self, text: PackedTokens, encoded: Encoded, run: Run) -> torch.Tensor:
        """What the head sees of every token: (T, width)."""
        segments = text.segments
        mix: Mix = partial(attention, queries=segments, keys=None, causal=True, scale=self.scale)
        x = self.embed(text.tokens, text.positions)
        for layer in self.layers:
            x = run(layer, x, mix, partial(self._cross, layer, encoded, segments))
        normed: torch.Tensor = self.layer_norm(x)
        return normed

    def embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(T,) tokens and their places in their texts -> (T, width)."""
        return self.embed_tokens[tokens] + self.embed_positions[positions]

    def _cross(self, layer: nn.Module, encoded: Encoded, segments: Segments, q: torch.Tensor) -> torch.Tensor:
        assert isinstance(layer, DecoderLayer)
        k, v = layer.encoder_attn.keys_and_values(encoded.frames)
        mixed: torch.Tensor = attention(
            q, k, v, segments, encoded.segments, causal=False, scale=self.scale, key_bias=encoded.bias
        )
        return mixed


def kept_frames(context: int, window: int) -> range:
    """Which frames of the silence behind the context are kept."""
    return range(context + TAIL_STRIDE // 2, window, TAIL_STRIDE)


def _key_bias(context: int, window: int) -> torch.Tensor:
    """What is added to the scores of each frame: the logarithm of how many it stands for."""
    count = len(kept_frames(context, window))
    weight = math.log(max((window - context) / max(count, 1), 1))
    return torch.cat([torch.zeros(context), torch.full((count,), weight)])
