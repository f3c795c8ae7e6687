"""whisper.cpp through pywhispercpp, greedy (pywhispercpp's default, and the fastest of its strategies).

Uses the binding's own module beside its `Model`, for the language, the encoder and single decoder steps,
which `Model` does not expose.
"""

import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _pywhispercpp as binding
from pywhispercpp.model import Model

from peers import Parts, Samples, Transcript


class WhisperCpp:
    """One ggml file. Timestamps and temperature fallback as whisper.cpp has them by default."""

    def __init__(self, file: Path, threads: int) -> None:
        self._file = file
        self._threads = threads

    def load(self) -> None:
        # Its public type leaves out the context that the functions of the binding take.
        self._model: Any = Model(
            str(self._file),
            n_threads=self._threads,
            redirect_whispercpp_logs_to=None,
            print_progress=False,
            print_timestamps=False,
        )

    def transcribe(self, samples: Samples, language: str | None) -> Transcript:
        context = self._model._ctx
        multilingual = bool(binding.whisper_is_multilingual(context))
        segments = self._model.transcribe(samples, language=(language or "auto") if multilingual else "en")
        heard = binding.whisper_lang_str(binding.whisper_full_lang_id(context)) if multilingual else "en"
        return Transcript(" ".join(segment.text for segment in segments), heard)

    def parts(self, samples: Samples, tokens: int) -> Parts | None:
        context = self._model._ctx
        binding.whisper_pcm_to_mel(context, samples, samples.size, self._threads)
        began = time.perf_counter()
        binding.whisper_encode(context, 0, self._threads)
        encoded = time.perf_counter()
        start = binding.whisper_token_sot(context)
        binding.whisper_decode(context, start, 1, 0, self._threads)  # not a typical step: first use of its buffers
        stepping = time.perf_counter()
        for position in range(1, tokens + 1):
            binding.whisper_decode(context, start, 1, position, self._threads)
        return Parts(encoded - began, (time.perf_counter() - stepping) / tokens)

    def describe(self) -> Mapping[str, str]:
        build_flags = " ".join(str(binding.whisper_print_system_info()).split())
        return {"pywhispercpp": version("pywhispercpp"), "build": build_flags, "sampling": "greedy"}


def build(file: Path, threads: int) -> WhisperCpp:
    """The system for the ggml file `file`."""
    return WhisperCpp(file, threads)
