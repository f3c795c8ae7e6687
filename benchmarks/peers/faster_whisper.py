"""faster-whisper: CTranslate2 weights computed in int8, sequential or through its batched pipeline.

Every option not named here is faster-whisper's default: timestamps and temperature fallback on and no voice
detection when sequential, voice detection on and batches of 8 when batched.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import ctranslate2
import faster_whisper
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer

from peers import Parts, Samples, Transcript

SHORT_RUN = 4  # tokens of the run that is subtracted: its cost is the prompt and the cross K/V


class FasterWhisper:
    """One CTranslate2 folder with one beam size."""

    def __init__(self, folder: Path, threads: int, beam_size: int, batched: bool) -> None:
        self._folder = folder
        self._threads = threads
        self._beam_size = beam_size
        self._batched = batched

    def load(self) -> None:
        self._model = faster_whisper.WhisperModel(
            str(self._folder), device="cpu", compute_type="int8", cpu_threads=self._threads
        )
        self._pipeline = faster_whisper.BatchedInferencePipeline(self._model) if self._batched else self._model

    def transcribe(self, samples: Samples, language: str | None) -> Transcript:
        segments, info = self._pipeline.transcribe(samples, language=language, beam_size=self._beam_size)
        return Transcript("".join(segment.text for segment in segments).strip(), info.language)

    def parts(self, samples: Samples, tokens: int) -> Parts | None:
        if self._batched:
            return None
        features = pad_or_trim(self._model.feature_extractor(samples))
        began = time.perf_counter()
        encoded = self._model.encode(features)
        encoder_s = time.perf_counter() - began
        short_s, short_steps = self._decode(encoded, SHORT_RUN)
        long_s, long_steps = self._decode(encoded, SHORT_RUN + tokens)
        return Parts(encoder_s, (long_s - short_s) / (long_steps - short_steps))

    def _decode(self, encoded: ctranslate2.StorageView, tokens: int) -> tuple[float, int]:
        """Seconds and generated tokens when the end of text is forbidden until `tokens` are out."""
        multilingual = self._model.model.is_multilingual
        tokenizer = Tokenizer(self._model.hf_tokenizer, multilingual, task="transcribe", language="en")
        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        began = time.perf_counter()
        result = self._model.model.generate(
            encoded,
            [prompt],
            beam_size=self._beam_size,
            max_length=len(prompt) + tokens,
            suppress_tokens=[tokenizer.eot],
        )
        return time.perf_counter() - began, len(result[0].sequences_ids[0])

    def describe(self) -> Mapping[str, str]:
        return {
            "faster-whisper": faster_whisper.__version__,
            "ctranslate2": ctranslate2.__version__,
            "compute_type": "int8",
            "beam_size": str(self._beam_size),
            "pipeline": "BatchedInferencePipeline" if self._batched else "sequential",
        }


def build(folder: Path, threads: int, beam_size: int, batched: bool = False) -> FasterWhisper:
    """The system for the CTranslate2 model in `folder`."""
    return FasterWhisper(folder, threads, beam_size, batched)
