"""llama-cpp-python's own loop over tokens, `Llama.generate`: its samplers, its batches, flash attention as llama.cpp
would choose it."""

import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

import llama_cpp

from peers.chat import Answered, Made, Question, Sampling


class LlamaCppPython:
    """Takes a GGUF file of its own: one in a bundle is copied out."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._file = made.bundle.gguf_file(made.work)
        self._llama: Any = None

    def load(self) -> None:
        made = self._made
        settings = {"n_threads": made.threads, "n_threads_batch": made.threads, "flash_attn": True, "verbose": False}
        self._llama = llama_cpp.Llama(str(self._file), n_ctx=made.context, **settings)

    def answer(self, question: Question, tokens: int, sampling: Sampling | None) -> Answered:
        llama = self._llama
        llama.reset()
        chosen: dict[str, Any] = {"temp": 0.0}
        if sampling is not None:
            llama.set_seed(sampling.seed)
            chosen = {"temp": sampling.temperature, "top_k": sampling.top_k}
            chosen |= {"top_p": sampling.top_p, "min_p": sampling.min_p}
        began = time.perf_counter()
        stream = llama.generate(question.tokens, **chosen)
        next(stream)
        first = time.perf_counter()
        made = 1 + sum(1 for _ in islice(stream, tokens - 1))
        last = time.perf_counter()
        stream.close()
        return Answered(first - began, last - first, made, made)

    def describe(self) -> Mapping[str, str]:
        return {"llama-cpp-python": llama_cpp.__version__}

    def close(self) -> None:
        if self._llama is not None:
            self._llama.close()
            self._llama = None


def build(made: Made) -> LlamaCppPython:
    """The system for the GGUF of one bundle."""
    return LlamaCppPython(made)
