"""Whisper over three Core ML models: rows, caches and masks, whatever computes the models.

On macOS coremltools does (`coreml.py`); on a workstation without Core ML the compiler's evaluator stands in for it.
What is here is the same over both. Knows the names and layouts that WhisperKit's apps have too; knows nothing of
packages.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.engines.shapes import SpeechShape
from sottovoce.errors import BundleError, EngineError
from sottovoce.gguf import GgufFile

MEL, ENCODER, DECODER = "MelSpectrogram", "AudioEncoder", "TextDecoder"
EMBEDS = "encoder_output_embeds"
_HIDDEN = np.float16(-1e4)  # added to a score, takes its position out of the softmax

Float = NDArray[np.float32]
Half = NDArray[np.float16]
Int = NDArray[np.int64]
Values = Mapping[str, NDArray[Any]]
Predict = Callable[[Values], Values]  # inputs by name -> outputs by name


@dataclass(frozen=True, slots=True)
class SpeechModels:
    """What computes the three. `decoder` is given what stays the same for all tokens of a clip, and gives what
    computes one token of it from the other inputs."""

    mel: Predict
    encoder: Predict
    decoder: Callable[[Values], Predict]


class CoreMLSpeech:
    """The engine of one bundle, called `name`; see `engines.SpeechEngine`. Cheap to make; `open_models` is called when
    it loads."""

    def __init__(self, shape: SpeechShape, open_models: Callable[[], SpeechModels], name: str) -> None:
        self.shape, self._open, self._name = shape, open_models, name
        self._models: SpeechModels | None = None

    def load(self) -> None:
        """Open the models. Raises what opening them raises."""
        if self._models is None:
            self._models = self._open()

    def close(self) -> None:
        """Give the models' memory back."""
        self._models = None

    @property
    def vocab_size(self) -> int:
        """How many logits a position has."""
        return self.shape.vocab_size

    @property
    def adapters(self) -> int:
        """None can be attached."""
        return 0

    def attach(self, file: GgufFile, scale: float) -> None:
        """Raises BundleError: a Core ML package's weights are one with their program."""
        raise BundleError(f"{self._name}: a Core ML bundle takes no adapter; merge it with compile --adapter")

    def detach(self, keep: int = 0) -> None:
        """Nothing is ever attached."""

    def bytes_per_second(self) -> int:
        """See `engines.SpeechEngine.bytes_per_second`; keys and values of cross-attention in float32, as the evaluator
        keeps them."""
        shape = self.shape
        return 16_000 // shape.frame_samples * 2 * shape.layers * shape.heads * shape.head_width * 4

    def start(self, clips: Sequence[Float], capacity: int) -> "CoreMLBatch":
        """See `engines.SpeechEngine.start`. Every clip is encoded with silence up to 30 s, as the model was trained."""
        self.load()
        assert self._models is not None  # loaded above
        audio = [self._encode(self._models, clip) for clip in clips]
        return CoreMLBatch(self.shape, [_Row.new(self.shape, one) for one in audio], capacity)

    def _encode(self, models: SpeechModels, samples: Float) -> Predict:
        whole = np.zeros(self.shape.max_frames * self.shape.frame_samples, np.float16)
        heard = samples[: whole.size]
        whole[: heard.size] = heard
        return models.decoder(models.encoder(models.mel({"audio": whole})))


@dataclass(slots=True)
class _Row:
    """One row of a batch: what decodes its audio, and its past."""

    step: Predict
    keys: Half  # (1, layers * width, 1, text context)
    values: Half
    length: int = 0

    @classmethod
    def new(cls, shape: SpeechShape, step: Predict) -> "_Row":
        size = (1, shape.layers * shape.heads * shape.head_width, 1, shape.text_context)
        return cls(step, np.zeros(size, np.float16), np.zeros(size, np.float16))

    def copy(self) -> "_Row":
        return _Row(self.step, self.keys.copy(), self.values.copy(), self.length)

    def feed(self, token: int) -> Values:
        """Append one token; what the model says after it."""
        context = self.keys.shape[-1]
        here = np.zeros((1, context), np.float16)
        here[0, self.length] = 1
        hidden = np.full((1, context), _HIDDEN, np.float16)
        hidden[0, : self.length + 1] = 0
        found = self.step(
            {
                "input_ids": np.array([token], np.int32),
                "cache_length": np.array([self.length], np.int32),
                "key_cache": self.keys,
                "value_cache": self.values,
                "kv_cache_update_mask": here,
                "decoder_key_padding_mask": hidden,
            }
        )
        self.keys[..., self.length] = found["key_cache_updates"][..., 0]
        self.values[..., self.length] = found["value_cache_updates"][..., 0]
        self.length += 1
        return found


class CoreMLBatch:
    """Rows decoded one after the other; see `engines.DecodeBatch`. The alignment has one head: the mean of those that
    follow the audio, which is what the model gives."""

    def __init__(self, shape: SpeechShape, rows: Sequence[_Row], capacity: int) -> None:
        self._shape, self._rows = shape, list(rows)
        self._capacity = min(capacity, shape.text_context)
        self._alignment: Float | None = None

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def length(self) -> int:
        """Tokens fed so far."""
        return self._rows[0].length

    def run(self, tokens: Int, logit_positions: Sequence[int]) -> Float:
        """See `engines.DecodeBatch.run`. Raises EngineError past the capacity."""
        count = tokens.shape[1]
        if self.length + count > self._capacity:
            raise EngineError(f"{self.length} + {count} tokens exceed the capacity of {self._capacity}")
        logits = np.empty((self.rows, len(logit_positions), self._shape.vocab_size), np.float32)
        self._alignment = np.empty((self.rows, 1, count, self._shape.max_frames), np.float32)
        for at, row in enumerate(self._rows):
            for place in range(count):
                found = row.feed(int(tokens[at, place]))
                self._alignment[at, 0, place] = found["alignment_heads_weights"][0]
                for index, wanted in enumerate(logit_positions):
                    if wanted == place:
                        logits[at, index] = found["logits"][0, 0]
        return logits

    def alignment(self) -> Float:
        """See `engines.DecodeBatch.alignment`."""
        assert self._alignment is not None  # of a run before
        return self._alignment

    def restart(self) -> None:
        """See `engines.DecodeBatch.restart`."""
        for row in self._rows:
            row.length = 0

    def fork(self, rows: Sequence[int], *, past: bool) -> "CoreMLBatch":
        """See `engines.DecodeBatch.fork`."""
        made = [self._rows[row].copy() if past else _Row.new(self._shape, self._rows[row].step) for row in rows]
        return CoreMLBatch(self._shape, made, self._capacity)

    def reorder(self, rows: Sequence[int]) -> None:
        """See `engines.DecodeBatch.reorder`."""
        if list(rows) != list(range(self.rows)):
            self._rows = [self._rows[row].copy() for row in rows]
