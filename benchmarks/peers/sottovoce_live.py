"""Our stream through the public API, as the bundle sets it. Knows nothing of what is in a bundle."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import onnxruntime

import sottovoce
from peers import Samples
from sottovoce import Transcriber
from sottovoce.types import Word
from sottovoce_compiler.report.stream_clock import Session


class SottovoceLive:
    """A bundle."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self._transcriber = Transcriber(bundle, threads=threads)

    def load(self) -> None:
        self._transcriber.load()

    def session(self, language: str) -> Session:
        return self._transcriber.session(language=language)

    def transcribe(self, samples: Samples, language: str) -> tuple[str, tuple[Word, ...]]:
        segments, _ = self._transcriber.transcribe(samples, language=language, word_timestamps=True)
        found = list(segments)
        words = tuple(word for segment in found for word in segment.words or ())
        return "".join(segment.text for segment in found).strip(), words

    def describe(self) -> Mapping[str, str]:
        options = asdict(self._transcriber.stream_options())
        chosen = {name: str(value) for name, value in options.items() if value is not None}
        return {"sottovoce": sottovoce.__version__, "onnxruntime": onnxruntime.__version__, **chosen}


def build(bundle: Path, threads: int) -> SottovoceLive:
    """The system for the bundle at `bundle` (a .svb file or a folder)."""
    return SottovoceLive(bundle, threads)
