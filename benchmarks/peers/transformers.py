"""transformers in fp32, greedy: the reference implementation that the others are compared with.

Clips over 30 s go through its own long-form generation with timestamps; temperature fallback stays off, which
is its default.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

from peers import Parts, Samples, Transcript

SAMPLE_RATE = 16_000
WINDOW = 30 * SAMPLE_RATE  # samples that one encoder pass sees
SHORT_RUN = 4  # tokens of the run that is subtracted: its cost is the encoder, the prompt and the cross K/V


class Transformers:
    """One Hugging Face folder."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads

    def load(self) -> None:
        torch.set_num_threads(self._threads)
        messages: Any = transformers.logging
        messages.set_verbosity_error()
        messages.disable_progress_bar()
        model: Any = WhisperForConditionalGeneration.from_pretrained(self._folder, dtype=torch.float32)
        self._model = model.eval()
        self._tokenizer = WhisperTokenizer.from_pretrained(self._folder)
        self._extractor = WhisperFeatureExtractor.from_pretrained(self._folder)

    def transcribe(self, samples: Samples, language: str | None) -> Transcript:
        long = samples.size > WINDOW
        inputs = self._extractor(
            samples,
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            truncation=not long,
            padding="longest" if long else "max_length",
            return_attention_mask=True,
        )
        with torch.inference_mode():
            tokens = self._model.generate(
                inputs.input_features,
                attention_mask=inputs.attention_mask,
                return_timestamps=True if long else None,
                **self._spoken(language),
            )
        return Transcript(self._tokenizer.decode(tokens[0], skip_special_tokens=True).strip(), language)

    def _spoken(self, language: str | None) -> dict[str, str]:
        """An English-only model refuses to be told a language or a task."""
        if not self._model.generation_config.is_multilingual:
            return {}
        return {"task": "transcribe"} | ({"language": language} if language else {})

    def parts(self, samples: Samples, tokens: int) -> Parts | None:
        features = self._extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            began = time.perf_counter()
            encoded = self._model.model.encoder(features)
            encoder_s = time.perf_counter() - began
            short_s = self._decode(encoded, SHORT_RUN)
            long_s = self._decode(encoded, SHORT_RUN + tokens)
        return Parts(encoder_s, (long_s - short_s) / tokens)

    def _decode(self, encoded: transformers.modeling_outputs.BaseModelOutput, tokens: int) -> float:
        """Seconds to generate exactly `tokens` from what the encoder gave."""
        began = time.perf_counter()
        self._model.generate(
            encoder_outputs=encoded, min_new_tokens=tokens, max_new_tokens=tokens, **self._spoken("en")
        )
        return time.perf_counter() - began

    def describe(self) -> Mapping[str, str]:
        return {"transformers": transformers.__version__, "torch": torch.__version__, "dtype": "float32"}


def build(folder: Path, threads: int) -> Transformers:
    """The system for the Hugging Face model in `folder`."""
    return Transformers(folder, threads)
