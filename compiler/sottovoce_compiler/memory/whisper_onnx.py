"""The memory of a Whisper on onnxruntime: its matrices, its caches, and the encoder's activations for so much audio.

Knows the graphs of `lowerings.onnx.whisper` and what the runtime's engine and transcriber allocate around them.
"""

from dataclasses import dataclass

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.onnx.linear import FloatLinear
from sottovoce_compiler.lowerings.onnx.recipe import Recipe
from sottovoce_compiler.lowerings.onnx.whisper import MARGIN_FRAMES, SAMPLES_PER_FRAME, TAIL_STRIDE
from sottovoce_compiler.memory.matrices import Matrix, held, looked_up, mapped_table, opening
from sottovoce_compiler.memory.measured import constants, imports
from sottovoce_compiler.memory.plan import MemoryPlan, Parts, Use

BENCH_SECONDS = 5.0  # of a bundle's own recording, which `sottovoce bench` hears
PIECE_SECONDS = 15.0  # of what the transcriber decodes at a time
_FLOAT = 4  # bytes
_RATE = 16_000  # samples a second
_LEAD_SECONDS = 0.1  # of silence before a piece
_HEADS_AT_ONCE = 4  # whose scores the encoder has in memory together
_KEYS_TOGETHER = 64
_TOKENS_A_SECOND, _TOKENS_TO_SPARE, _MOST_TOKENS, _STEERING = 25, 20, 224, 8
_BATCH_BYTES, _BATCH_ROWS = 40 << 20, 8  # of encoded audio that the transcriber decodes together


def plan_whisper_onnx(spec: WhisperSpec, recipe: Recipe, window: float) -> MemoryPlan:
    """The plan of a bundle made by `recipe`; `window` is the seconds of audio that its stream decodes at most."""
    engine, speech = constants("onnxruntime"), constants("speech")
    matrices = whisper_matrices(spec, recipe)
    stem = _FLOAT * 3 * spec.width * (spec.n_mels + spec.width)  # in float32 once it is open
    session = speech["float_session" if recipe.encoder == FloatLinear() else "session"]
    uses = _Uses(spec, looked_up(matrices[-1]))
    return MemoryPlan(
        imports=imports("python", "numpy", "onnxruntime"),
        held={"weights": held(matrices) + stem + mapped_table(matrices[-1]), "engine": round(engine["code"] + session)},
        opening={"opening": opening(matrices)},
        uses=(
            Use(f"{BENCH_SECONDS:g} s of speech", uses.piece(BENCH_SECONDS)),
            Use(f"{PIECE_SECONDS:g} s of speech", uses.piece(PIECE_SECONDS)),
            Use(f"stream, window of {window:g} s", uses.stream(window), needed=False),
            Use("long recording, in batches", uses.batches(), needed=False),
        ),
    )


def whisper_matrices(spec: WhisperSpec, recipe: Recipe) -> list[Matrix]:
    """Every weight matrix, the head (which is the embedding) last."""
    d, layers, below = spec.width, spec.decoder_layers, spec.encoder_layers
    return [
        Matrix(d, d, recipe.encoder, 4 * below + 2 * layers),  # with the keys and values of cross-attention
        Matrix(spec.encoder_ffn, d, recipe.encoder, 2 * below),
        Matrix(d, d, recipe.decoder, 6 * layers),
        Matrix(spec.decoder_ffn, d, recipe.decoder, 2 * layers),
        Matrix(spec.vocab_size, d, recipe.head),
    ]


def encoded_frames(spec: WhisperSpec, seconds: float) -> int:
    """Frames of 20 ms that the encoder works on for so much audio: it, a margin, and silence compressed."""
    spoken = min(spec.n_audio_ctx, -(-round(seconds * _RATE) // SAMPLES_PER_FRAME) + MARGIN_FRAMES)
    tail = max(0, -(-(spec.n_audio_ctx - spoken - TAIL_STRIDE // 2) // TAIL_STRIDE))
    return -(-(spoken + tail) // _KEYS_TOGETHER) * _KEYS_TOGETHER


def _cross(spec: WhisperSpec, frames: float) -> float:
    return 2 * spec.decoder_layers * frames * spec.width * _FLOAT


def _past(spec: WhisperSpec, seconds: float) -> int:
    tokens = _STEERING + min(_MOST_TOKENS, round(seconds * _TOKENS_A_SECOND) + _TOKENS_TO_SPARE)
    return 2 * spec.decoder_layers * tokens * spec.width * _FLOAT


@dataclass(frozen=True, slots=True)
class _Uses:
    """What each use adds. `looked_up` are the bytes of the embedding that are mapped in by looking tokens up."""

    spec: WhisperSpec
    looked_up: int

    def piece(self, seconds: float) -> Parts:
        """A recording of one piece."""
        return self._parts(seconds, self._activations(seconds))

    def stream(self, window: float) -> Parts:
        """Audio of ever different length: what onnxruntime took for one does not fit the next, and is kept."""
        return self._parts(window, constants("speech")["lengths"] * self._activations(window))

    def batches(self) -> Parts:
        """A recording of many pieces, as many decoded together as the transcriber has memory for."""
        row = _cross(self.spec, PIECE_SECONDS * _RATE / SAMPLES_PER_FRAME)
        rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / row)))
        frames = encoded_frames(self.spec, PIECE_SECONDS + _LEAD_SECONDS)
        stacked = constants("speech")["stacked"] * rows * _cross(self.spec, frames) if rows > 1 else 0
        return self._parts(PIECE_SECONDS, self._activations(PIECE_SECONDS) + stacked, rows)

    def _activations(self, seconds: float) -> float:
        speech, spec = constants("speech"), self.spec
        frames = encoded_frames(spec, seconds + _LEAD_SECONDS)
        scores = (min(_HEADS_AT_ONCE, spec.encoder_heads) + 1) * frames**2 * _FLOAT
        return speech["scores"] * scores + speech["rows"] * frames * spec.width * _FLOAT

    def _parts(self, seconds: float, activations: float, rows: int = 1) -> Parts:
        speech = constants("speech")
        return {
            "activations": round(activations),
            "past": rows * _past(self.spec, seconds),
            "running": round(speech["running"] + self.looked_up),
            "audio": round(speech["audio"] * rows * seconds * _RATE * _FLOAT),
        }
