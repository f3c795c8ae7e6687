"""Whisper's two graphs on LiteRT.

Knows which frames are heard, buffers and rows; knows nothing of text, rules or segments. The graphs are those of
`sottovoce_compiler.lowerings.litert.whisper`, where inputs and results are described.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.engines.litert_decoder import Audio, Decoder, Row, cross_shapes, side_by_side
from sottovoce.engines.litert_model import LiteRtModel, find_package
from sottovoce.engines.shapes import SpeechShape
from sottovoce.errors import BundleError, EngineError
from sottovoce.gguf import GgufFile

Float = NDArray[np.float32]
Int = NDArray[np.int64]

ENCODER = "encoder.tflite"
_SPARE_FRAMES = 2  # silence run through the stem beyond the context, so that its last frame has what follows it
_MIN_SAMPLES = 400  # shorter audio is followed by silence, as on the other engine
_TOGETHER = 4  # tokens of a row; with more, rows run one after the other: less is computed only to be hidden


@dataclass(frozen=True, slots=True)
class Hearing:
    """How silence is heard (the manifest's `model`): `margin` frames of it as they are, then every `stride`-th."""

    margin: int
    stride: int

    @classmethod
    def of(cls, model: Mapping[str, Any], frames: int) -> "Hearing":
        """Raises BundleError naming the number that is missing or absurd."""
        found = []
        for key in ("margin_frames", "tail_stride"):
            value = model.get(key)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= frames:
                raise BundleError(f"the manifest has {key} = {value!r:.50}; 1 to {frames} is possible")
            found.append(value)
        return cls(*found)


@dataclass(frozen=True, slots=True)
class Heard:
    """Which frames stand where: `frames` (f,) int32 of the audio and the silence behind it, `positions` (f,) int32 in
    30 s, `bias` (f,) float32 that is added to the scores of each; `samples` to give, silence included."""

    frames: NDArray[np.int32]
    positions: NDArray[np.int32]
    bias: Float
    samples: int

    @classmethod
    def of(cls, samples: int, shape: SpeechShape, hearing: Hearing) -> "Heard":
        context = min(-(-samples // shape.frame_samples) + hearing.margin, shape.max_frames)
        here, kept = np.arange(context), np.arange(context + hearing.stride // 2, shape.max_frames, hearing.stride)
        quiet = np.full(kept.size, context - hearing.margin // 2)  # amid the margin, wherever there is a tail
        weight = math.log(max((shape.max_frames - context) / max(kept.size, 1), 1))
        return cls(
            np.concatenate([here, quiet]).astype(np.int32),
            np.concatenate([here, kept]).astype(np.int32),
            np.concatenate([np.zeros(context), np.full(kept.size, weight)]).astype(np.float32),
            (context + _SPARE_FRAMES) * shape.frame_samples,
        )

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Of the encoder's inputs."""
        count = self.frames.size
        frames = {"frames": (count,), "positions": (count,), "key_bias": (1, 1, 1, count)}
        return {"audio": (1, self.samples), **frames}


class LiteRtWhisper:
    """The engine of one bundle; see `engines.SpeechEngine`. Cheap to make; `load` opens the graphs."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle, self._threads = bundle, threads
        manifest = bundle.manifest
        self.shape = SpeechShape.of(manifest.model, manifest.audio)
        self._hearing = Hearing.of(manifest.model, self.shape.max_frames)
        self._encoder: LiteRtModel | None = None
        self._decoder: Decoder | None = None

    def load(self) -> None:
        """Check both files and open them. Raises BundleError for a damaged one, EngineError when LiteRT refuses it or
        an old one computes something else, MissingExtraError where it is not installed."""
        if self._decoder is not None:
            return
        cross = cross_shapes(self.shape)
        inputs = {"audio": (1, -1), "frames": (-1,), "positions": (-1,), "key_bias": (1, 1, 1, -1)}
        self._encoder = LiteRtModel(self._bundle, ENCODER, self._threads, inputs, cross)
        # LiteRT lays weights out for its kernels when sizes are first known: now, and not at the first audio.
        self._encoder.resize(Heard.of(_MIN_SAMPLES, self.shape, self._hearing).sizes())
        self._decoder = Decoder(self._bundle, self._threads, self.shape)
        if not (package := find_package()).maintained:
            from sottovoce.engines.litert_proof import prove_speech

            try:
                prove_speech(self._bundle, package, self)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Give the graphs' memory back."""
        self._encoder = self._decoder = None

    @property
    def vocab_size(self) -> int:
        """How many logits a position has."""
        return self.shape.vocab_size

    @property
    def adapters(self) -> int:
        """None is ever attached."""
        return 0

    def attach(self, file: GgufFile, scale: float) -> None:
        """Raises BundleError: these graphs have no room for adapters."""
        raise BundleError(
            f"{self._bundle.path}: a bundle for LiteRT takes no adapter; compile with --adapter, or for onnxruntime"
        )

    def detach(self, keep: int = 0) -> None:
        """Nothing is ever attached."""

    def bytes_per_second(self) -> int:
        """Keys and values of a second of audio, as the batch holds them."""
        shape = self.shape
        return 16_000 // shape.frame_samples * 2 * shape.layers * shape.heads * shape.head_width * 4

    def start(self, clips: Sequence[Float], capacity: int) -> "LiteRtBatch":
        """See `engines.SpeechEngine.start`. Raises EngineError when LiteRT does."""
        self.load()
        assert self._decoder is not None  # loaded above
        room = min(capacity, self.shape.text_context)
        return LiteRtBatch(self._decoder, [self._decoder.row(self._encode(clip), room) for clip in clips])

    def _encode(self, clip: Float) -> Audio:
        graph, shape = self._encoder, self.shape
        assert graph is not None  # `start` has loaded it
        samples = np.asarray(clip[: shape.max_frames * shape.frame_samples], np.float32)
        heard = Heard.of(max(samples.size, _MIN_SAMPLES), shape, self._hearing)
        graph.resize(heard.sizes())
        graph.put("audio", np.pad(samples, (0, heard.samples - samples.size)))
        graph.put("frames", heard.frames)
        graph.put("positions", heard.positions)
        graph.put("key_bias", heard.bias)
        graph.run()
        return Audio({name: graph.result(name) for name in cross_shapes(shape)}, heard.bias)


class LiteRtBatch:
    """Rows decoded together; see `engines.DecodeBatch`."""

    def __init__(self, decoder: Decoder, rows: Sequence[Row]) -> None:
        self._decoder, self._rows = decoder, list(rows)
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
        capacity = self._rows[0].capacity
        if self.length + tokens.shape[1] > capacity:
            raise EngineError(f"{self.length} + {tokens.shape[1]} tokens exceed the capacity of {capacity}")
        if self.rows == 1 or tokens.shape[1] <= _TOGETHER:
            logits, self._alignment = self._decoder.run(self._rows, tokens, logit_positions)
            return logits
        runs = [self._decoder.run([row], tokens[i : i + 1], logit_positions) for i, row in enumerate(self._rows)]
        self._alignment = side_by_side([alignment[0] for _, alignment in runs])
        return np.concatenate([logits for logits, _ in runs])

    def alignment(self) -> Float:
        """See `engines.DecodeBatch.alignment`."""
        if self._alignment is None:
            raise EngineError("nothing was decoded yet: there is no alignment")
        return self._alignment

    def restart(self) -> None:
        """See `engines.DecodeBatch.restart`."""
        for row in self._rows:
            row.length = 0

    def fork(self, rows: Sequence[int], *, past: bool) -> "LiteRtBatch":
        """See `engines.DecodeBatch.fork`. Rows of one audio share it."""
        return LiteRtBatch(self._decoder, [self._rows[row].copy(past=past) for row in rows])

    def reorder(self, rows: Sequence[int]) -> None:
        """See `engines.DecodeBatch.reorder`."""
        if list(rows) != list(range(self.rows)):
            # A row that stays where it was keeps its cache; others are new, since several may go on from one.
            self._rows = [
                self._rows[row] if row == at else self._rows[row].copy(past=True) for at, row in enumerate(rows)
            ]
