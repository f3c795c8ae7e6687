"""What this machine could run, reckoned from its speed and its free memory: no model is needed for it.

A roofline (Williams et al. 2009): products at the speed that float32 products have here, and for each token all of its
weights read once. Int8 is faster than that where the processor has instructions for it, so that speech is
underestimated there; nothing else that costs time is counted, so that chat is overestimated. `sottovoce bench`
measures.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sottovoce.doctor.speed import Speed

MEGABYTE = 1_000_000
_SECONDS = 15  # of a piece of a recording (loading.py)
_FRAMES = _SECONDS * 50
_TOKENS = _SECONDS * 3  # as many as are spoken
_WHISPER_VOCABULARY = 51_865
_PROCESS = 75 * MEGABYTE  # Python with NumPy and ONNX Runtime
_ACTIVATIONS = 6  # arrays of (frames, 4 x width) float32, and the scores of one layer, are live at once
_BITS_4 = 0.65  # bytes a weight, scales and the parts that stay in 8 bits among them
_CONTEXT = 100 * MEGABYTE  # keys, values and buffers of a chat, roughly


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of one model: memory in MB (10^6 bytes), and how fast: `rtf`, seconds of work a second of audio,
    or `tokens_per_s`, at most."""

    model: str
    needed_mb: int
    rtf: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Whisper:
    """A size of Whisper, by its published shape (Radford et al. 2022, table 1)."""

    name: str
    width: int
    encoder_layers: int
    decoder_layers: int

    @property
    def weights(self) -> int:
        """Bytes in int8."""
        w = self.width**2
        return 12 * w * self.encoder_layers + 16 * w * self.decoder_layers + self.width * _WHISPER_VOCABULARY

    @property
    def piece_products(self) -> int:
        """Multiply-adds of the encoder, and of the keys and values for the decoder, for one piece."""
        w = self.width**2
        layer = 12 * w * _FRAMES + 2 * _FRAMES**2 * self.width
        return self.encoder_layers * layer + 2 * w * _FRAMES * self.decoder_layers

    @property
    def token_bytes(self) -> int:
        """Read for each token: the decoder's weights, and what was heard, in float32."""
        heard = 2 * _FRAMES * self.width * 4
        return self.decoder_layers * (14 * self.width**2 + heard) + self.width * _WHISPER_VOCABULARY

    @property
    def needed(self) -> int:
        """Bytes of memory."""
        activations = _ACTIVATIONS * _FRAMES * 4 * self.width * 4
        return _PROCESS + self.weights + activations + self.decoder_layers * 2 * _FRAMES * self.width * 4


WHISPER = (
    _Whisper("whisper tiny", 384, 4, 4),
    _Whisper("whisper base", 512, 6, 6),
    _Whisper("whisper small", 768, 12, 12),
    _Whisper("whisper medium", 1024, 24, 24),
    _Whisper("whisper large-v3-turbo", 1280, 32, 4),
)
CHAT = (
    ("chat, 135M weights", 0.135e9),
    ("chat, 1B weights", 1e9),
    ("chat, 3B weights", 3e9),
    ("chat, 8B weights", 8e9),
)


def outlook(speed: Speed, available: int | None) -> Iterator[Outlook]:
    """Those models, in 8 bits for speech and 4 for chat, that `available` bytes of memory are enough for; all of them
    where that is None."""
    for size in WHISPER:
        if available is None or size.needed <= available:
            products = 2 * size.piece_products / (speed.gflops * 1e9)
            reads = _TOKENS * size.token_bytes / (speed.gb_per_s * 1e9)
            yield Outlook(size.name, size.needed // MEGABYTE, rtf=round((products + reads) / _SECONDS, 3))
    for name, weights in CHAT:
        size_bytes = weights * _BITS_4
        needed = int(_PROCESS + _CONTEXT + size_bytes)
        if available is None or needed <= available:
            rate = round(speed.gb_per_s * 1e9 / size_bytes, 1)
            yield Outlook(name, needed // MEGABYTE, tokens_per_s=rate)
