"""Ours, through the public API, as a user of the runtime would write it.

Only `parts` reaches the engine inside, by its Protocol. Knows nothing of what is in a bundle.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

import sottovoce
from peers import Parts, Samples, Transcript
from sottovoce import Transcriber


class Sottovoce:
    """A bundle in the runtime's defaults."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self._transcriber = Transcriber(bundle, threads=threads)

    def load(self) -> None:
        self._transcriber.load()

    def transcribe(self, samples: Samples, language: str | None) -> Transcript:
        segments, info = self._transcriber.transcribe(samples, language=language)
        return Transcript("".join(segment.text for segment in segments).strip(), info.language)

    def transcribe_batch(self, clips: list[Samples], language: str | None) -> list[Transcript]:
        results = self._transcriber.transcribe_batch(clips, language=language)
        return [Transcript("".join(s.text for s in segments).strip(), info.language) for segments, info in results]

    def parts(self, samples: Samples, tokens: int) -> Parts | None:
        engine = self._transcriber._ready.engine
        began = time.perf_counter()
        batch = engine.start([samples], tokens + 1)
        encoded = time.perf_counter()
        token = np.zeros((1, 1), dtype=np.int64)
        batch.run(token, [0])  # not a typical step: first use of its buffers
        stepping = time.perf_counter()
        for _ in range(tokens):
            batch.run(token, [0]).argmax()
        return Parts(encoded - began, (time.perf_counter() - stepping) / tokens)

    def describe(self) -> Mapping[str, str]:
        return {"sottovoce": sottovoce.__version__, "onnxruntime": onnxruntime.__version__}


def build(bundle: Path, threads: int) -> Sottovoce:
    """The system for the bundle at `bundle` (a .svb file or a folder)."""
    return Sottovoce(bundle, threads)
