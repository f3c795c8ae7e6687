"""The model in training as an engine of the runtime, so that what it says is decoded by the device's own rules.

Fulfils the runtime's `SpeechEngine` and `DecodeBatch`: grammar, limits and guards are the runtime's. Knows caches and
rows; computes with the training model's own layers, adapters included. Not made for speed on a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from sottovoce_compiler.finetune.batches import LogMel
from sottovoce_compiler.finetune.model.log_mel import log_mel
from sottovoce_compiler.finetune.model.whisper import Encoded, WhisperTraining
from sottovoce_compiler.finetune.model.whisper_layers import DecoderLayer

Float = NDArray[np.float32]
Int = NDArray[np.int64]
Pair = tuple[torch.Tensor, torch.Tensor]  # keys and values, each (rows, heads, length, head width)

_HIDDEN = -1e9  # added to a score, takes its key out of the softmax


class TorchWhisper:
    """Runs a `WhisperTraining` as it is at the moment; gradients are not kept."""

    def __init__(self, model: WhisperTraining, *, full_window: bool = False) -> None:
        self._model, self._full_window = model, full_window

    def load(self) -> None:
        """Nothing to do: the model is in memory."""

    def close(self) -> None:
        """Nothing to give back."""

    def bytes_per_second(self) -> int:
        """Memory that a second of encoded audio holds while it is being decoded."""
        spec = self._model.spec
        return 50 * 2 * spec.decoder_layers * spec.width * 4

    @torch.inference_mode()
    def start(self, clips: Sequence[Float], capacity: int) -> "TorchBatch":
        """Encode clips, each (n,) float32 at 16 kHz of at most 30 s; `capacity` is not needed: caches grow."""
        spec = self._model.spec
        hear = partial(log_mel, n_mels=spec.n_mels, window=spec.n_audio_ctx, full_window=self._full_window)
        return self.begin([hear(torch.from_numpy(np.ascontiguousarray(clip, np.float32))) for clip in clips])

    @torch.inference_mode()
    def begin(self, features: Sequence[LogMel]) -> "TorchBatch":
        """The same from spectrograms."""
        device = self._model.decoder.embed_tokens.device
        encoded = self._model.encode([one.to(device) for one in features])
        cross: list[Pair] = []
        for layer in self._model.decoder.layers:
            assert isinstance(layer, DecoderLayer)
            keys, values = layer.encoder_attn.keys_and_values(encoded.frames)
            cross.append((_rows(keys, encoded), _rows(values, encoded)))
        return TorchBatch(self._model, _Heard(cross, _bias(encoded)))


@dataclass(frozen=True, slots=True)
class _Heard:
    """Keys and values of every decoder layer, and what is added to their scores: (rows, 1, 1, keys)."""

    cross: list[Pair]
    bias: torch.Tensor

    def of(self, rows: Sequence[int]) -> "_Heard":
        at = list(rows)
        return _Heard([(keys[at], values[at]) for keys, values in self.cross], self.bias[at])


class TorchBatch:
    """Rows being decoded together; see `sottovoce.engines.DecodeBatch`."""

    def __init__(self, model: WhisperTraining, heard: _Heard, past: list[Pair] | None = None) -> None:
        self._model, self._heard, self._past = model, heard, past

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._heard.bias)

    @torch.inference_mode()
    def run(self, tokens: Int, logit_positions: Sequence[int]) -> Float:
        """Feed `tokens` (rows, length); logits (rows, len(logit_positions), vocabulary) float32."""
        decoder = self._model.decoder
        ids = torch.from_numpy(tokens).to(decoder.embed_tokens.device)
        done = self._past[0][0].shape[2] if self._past else 0
        places = torch.arange(done, done + ids.shape[1], device=ids.device)
        x = decoder.embed(ids, places.expand_as(ids)).flatten(0, 1)
        past: list[Pair] = []
        for i, layer in enumerate(decoder.layers):
            x = layer(x, partial(self._mix, i, past), partial(self._cross, i))
        self._past = past
        wanted = decoder.layer_norm(x.view(*ids.shape, -1)[:, list(logit_positions)])
        logits: Float = functional.linear(wanted, decoder.embed_tokens).float().cpu().numpy()
        return logits

    def alignment(self) -> Float:
        """Not kept here. Raises NotImplementedError: words are timed on the bundle."""
        raise NotImplementedError("the training model keeps no alignment; transcribe without word_timestamps")

    def restart(self) -> None:
        """Forget the tokens fed so far; the audio stays."""
        self._past = None

    def fork(self, rows: Sequence[int], *, past: bool) -> "TorchBatch":
        """A batch of these rows, in this order, a row as often as it is named; with their past, or from the start."""
        return TorchBatch(self._model, self._heard.of(rows), _of(self._past, rows) if past else None)

    def reorder(self, rows: Sequence[int]) -> None:
        """Give row i the past of `rows[i]`."""
        self._past = _of(self._past, rows)

    def _mix(self, i: int, past: list[Pair], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Self-attention of new tokens, (rows * length, heads, head width); the cache goes on in `past`."""
        q, k, v = (_heads_first(one, self.rows) for one in (q, k, v))
        if self._past:
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(self._past[i], (k, v), strict=True))
        past.append((k, v))
        length, keys = q.shape[2], k.shape[2]
        seen = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(keys - length)
        mixed = functional.scaled_dot_product_attention(q, k, v, seen, scale=self._model.decoder.scale)
        return mixed.transpose(1, 2).flatten(0, 1)

    def _cross(self, i: int, q: torch.Tensor) -> torch.Tensor:
        keys, values = self._heard.cross[i]
        mixed = functional.scaled_dot_product_attention(
            _heads_first(q, self.rows), keys, values, self._heard.bias.to(q.dtype), scale=self._model.decoder.scale
        )
        return mixed.transpose(1, 2).flatten(0, 1)


def _heads_first(x: torch.Tensor, rows: int) -> torch.Tensor:
    """(rows * length, heads, head width) -> (rows, heads, length, head width)."""
    return x.view(rows, -1, *x.shape[1:]).transpose(1, 2)


def _of(past: list[Pair] | None, rows: Sequence[int]) -> list[Pair] | None:
    at = list(rows)
    return None if past is None else [(keys[at], values[at]) for keys, values in past]


def _rows(packed: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    """(F, heads, head width) of recordings one behind the other -> (recordings, heads, longest, head width)."""
    parts = [packed[begin:end] for begin, end in encoded.segments.bounds()]
    return pad_sequence(parts, batch_first=True).transpose(1, 2)


def _bias(encoded: Encoded) -> torch.Tensor:
    """(recordings, 1, 1, longest) float32, frames that a shorter one does not have hidden."""
    bias = torch.zeros(len(encoded.frames), device=encoded.frames.device) if encoded.bias is None else encoded.bias
    parts = [bias[begin:end] for begin, end in encoded.segments.bounds()]
    return pad_sequence(parts, batch_first=True, padding_value=_HIDDEN)[:, None, None]
