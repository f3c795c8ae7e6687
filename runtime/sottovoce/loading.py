"""Opening a speech bundle: everything a transcriber holds once it is loaded, each checked as it is read."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sottovoce.archive import MANIFEST
from sottovoce.bundle import Bundle, open_bundle
from sottovoce.chunking import chunks
from sottovoce.decoding.grammar import Tokens
from sottovoce.engines import BundleEngine
from sottovoce.engines.opening import speech_engine
from sottovoce.errors import BundleError, InputError
from sottovoce.manifest import printable
from sottovoce.onnx_external import load_graph
from sottovoce.streaming.options import stream_settings
from sottovoce.tokens import TokenTable, unpack_tokens
from sottovoce.types import TranscribeOptions
from sottovoce.vad import SAMPLE_RATE, Span, VadOptions, VoiceActivity, speech_spans

VAD, TOKENS = "vad.onnx", "tokens.bin"
_WANTED = 15 * SAMPLE_RATE  # samples in a piece: 10 s lost accuracy, 20 and 28 s time and memory and won nothing

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recording:
    """Audio at 16 kHz and where its pieces lie; durations in seconds."""

    samples: Float
    pieces: tuple[Span, ...]

    @property
    def duration(self) -> float:
        return self.samples.size / SAMPLE_RATE

    @property
    def speech(self) -> float:
        return sum(span.end - span.start for span in self.pieces) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Loaded:
    """The parts of an opened speech bundle; `stream` holds its own settings of a stream, by name."""

    bundle: Bundle
    tokens: Tokens
    table: TokenTable
    engine: BundleEngine
    vad: VoiceActivity | None
    stream: Mapping[str, float]

    @classmethod
    def open(cls, path: Path, threads: int) -> "Loaded":
        """Raises BundleError for a bundle that is damaged, made for another task, or beyond this runtime."""
        bundle = open_bundle(path)
        manifest = bundle.manifest
        if manifest.task != "transcribe":
            raise BundleError(f"{path} is a bundle for {manifest.task!r}; this one transcribes")
        if manifest.family != "whisper":
            raise BundleError(f"{path} holds a {manifest.family!r} model; this runtime transcribes with whisper")
        bundle.check_runtime()
        stream = _stream_settings(bundle)
        engine = speech_engine(bundle, threads)
        tokens = Tokens.of(manifest.generation, engine.vocab_size)
        table = TokenTable(unpack_tokens(bundle.read(TOKENS)), tokens.end)
        if len(table.texts) < tokens.end:
            raise BundleError(f"{path}: tokens.bin has {len(table.texts)} tokens, fewer than the model speaks")
        with ThreadPoolExecutor(1) as beside:
            vad = beside.submit(_open_vad, bundle)
            engine.load()
            return cls(bundle, tokens, table, engine, vad.result(), stream)

    def check(self, options: TranscribeOptions) -> None:
        """Raises InputError for options that this model cannot follow."""
        language = options.language
        if not self.tokens.languages and language not in (None, "en"):
            raise InputError(f"language {language!r}: this model is English only")
        self.tokens.prompt(language, options.task, timestamps=True)
        highest = max(options.suppress_tokens, default=-1)
        if highest >= self.engine.vocab_size:
            raise InputError(f"suppress_tokens has {highest}; this model's tokens are below {self.engine.vocab_size}")

    def cut(self, samples: Float, options: TranscribeOptions) -> Recording:
        """Find speech in (samples,) float32 at 16 kHz and cut it into pieces; all of it counts where VAD is off, and is
        still cut at pauses."""
        probabilities = np.ones(0, np.float32)
        spans = [Span(0, samples.size)]
        if self.vad is not None and (options.vad_filter or samples.size > _WANTED):
            probabilities = self.vad.probabilities(samples)
            if options.vad_filter:
                spans = speech_spans(probabilities, samples.size, VadOptions())
        return Recording(samples, tuple(chunks(spans, probabilities, _WANTED)))


def _open_vad(bundle: Bundle) -> VoiceActivity | None:
    return VoiceActivity(load_graph(bundle, VAD).model) if VAD in bundle.manifest.files else None


def _stream_settings(bundle: Bundle) -> dict[str, float]:
    """What the bundle says of streaming, which is believed no more than anything else in it."""
    try:
        return stream_settings(bundle.manifest.stream)
    except InputError as error:
        raise BundleError(f"{bundle.path}: {MANIFEST}: stream: {printable(str(error), 300)}") from None
