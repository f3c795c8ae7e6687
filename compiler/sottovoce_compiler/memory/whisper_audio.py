"""What a Whisper holds for so much audio, in any engine: encoded frames, keys and values, and how a bundle is used.

Follows from the model's shape and the runtime's rules alone. Knows no engine, and nothing that was measured.
"""

from collections.abc import Callable

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.onnx.whisper import MARGIN_FRAMES, SAMPLES_PER_FRAME, TAIL_STRIDE
from sottovoce_compiler.memory.matrices import Matrix
from sottovoce_compiler.memory.plan import Parts, Use
from sottovoce_compiler.memory.recipes import SpeechRecipe

BENCH_SECONDS = 5.0  # of a bundle's own recording, which `sottovoce bench` hears
PIECE_SECONDS = 15.0  # of what the transcriber decodes at a time
FLOAT = 4  # bytes
RATE = 16_000  # samples a second
ENCODERS = 2  # of `whisper_matrices`, the first, are in the encoder
LEAD_SECONDS = 0.1  # of silence before a piece
_TOKENS_A_SECOND, _TOKENS_TO_SPARE, _MOST_TOKENS, _STEERING = 25, 20, 224, 8
_BATCH_BYTES, _BATCH_ROWS = 40 << 20, 8  # of encoded audio that the transcriber decodes together


def whisper_matrices(spec: WhisperSpec, recipe: SpeechRecipe) -> list[Matrix]:
    """Every weight matrix, the head (which is the embedding) last."""
    d, layers, below = spec.width, spec.decoder_layers, spec.encoder_layers
    return [
        Matrix(d, d, recipe.encoder, 4 * below + 2 * layers),  # with the keys and values of cross-attention
        Matrix(spec.encoder_ffn, d, recipe.encoder, 2 * below),
        Matrix(d, d, recipe.decoder, 6 * layers),
        Matrix(spec.decoder_ffn, d, recipe.decoder, 2 * layers),
        Matrix(spec.vocab_size, d, recipe.head),
    ]


def stem_values(spec: WhisperSpec) -> int:
    """Weights of the two convolutions before the encoder."""
    return 3 * spec.width * (spec.n_mels + spec.width)


def encoded_frames(spec: WhisperSpec, seconds: float, together: int = 1) -> int:
    """Frames of 20 ms that the encoder works on for so much audio: it, a margin, and silence compressed; rounded up to
    a multiple of `together`."""
    spoken = min(spec.n_audio_ctx, -(-round(seconds * RATE) // SAMPLES_PER_FRAME) + MARGIN_FRAMES)
    tail = max(0, -(-(spec.n_audio_ctx - spoken - TAIL_STRIDE // 2) // TAIL_STRIDE))
    return -(-(spoken + tail) // together) * together


def cross_bytes(spec: WhisperSpec, frames: float) -> float:
    """Keys and values of cross-attention over so many frames."""
    return 2 * spec.decoder_layers * frames * spec.width * FLOAT


def past_bytes(spec: WhisperSpec, seconds: float) -> int:
    """Keys and values of the tokens that there is room for in a piece of so many seconds."""
    tokens = _STEERING + min(_MOST_TOKENS, round(seconds * _TOKENS_A_SECOND) + _TOKENS_TO_SPARE)
    return 2 * spec.decoder_layers * tokens * spec.width * FLOAT


def rows_together(spec: WhisperSpec) -> int:
    """Pieces of a long recording that the transcriber decodes together."""
    row = cross_bytes(spec, PIECE_SECONDS * RATE / SAMPLES_PER_FRAME)
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / row)))


def used(
    piece: Callable[[float], Parts], stream: Callable[[float], Parts], long: Parts, window: float
) -> tuple[Use, ...]:
    """The uses of a plan from what each adds: a piece of so many seconds, a stream with such a window, many pieces."""
    return (
        Use(f"{BENCH_SECONDS:g} s of speech", piece(BENCH_SECONDS)),
        Use(f"{PIECE_SECONDS:g} s of speech", piece(PIECE_SECONDS)),
        Use(f"stream, window of {window:g} s", stream(window), needed=False),
        Use("long recording, in batches", long, needed=False),
    )
