"""LocalAgreement-2 over faster-whisper int8: a stream as most people build one today, beside which ours is measured.

After Macháček et al. 2023 (arXiv 2307.14743, section 3): every `step` seconds the whole buffer is decoded, and the
words on which two successive hypotheses agree are final. A buffer over `trim` seconds is cut at the last segment that
is complete and final; the text before it, up to 200 characters, is the prompt of the next decoding.

Four things favour it here. Words agree without case and punctuation. Where a hypothesis has passed what is committed is
found by its words first, and by their times only where the words are not found, so that a word after a pause is not
taken for an old one. A buffer without such a segment is cut at the last committed word once it holds 20 s, and never
grows beyond what Whisper decodes at a time. The greedy rows decode once: no second try at a higher temperature, which
here costs seconds. Knows audio and words; knows nothing of clocks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import ctranslate2
import faster_whisper
import numpy as np

from peers import Samples
from sottovoce.streaming.events import Committed, Event, Partial
from sottovoce.types import Word
from sottovoce_compiler.report.stream_score import words_of

SAMPLE_RATE = 16_000
TRIM_ANYWHERE = 20.0  # seconds of audio above which it is cut where no segment ends
PROMPT_CHARACTERS = 200
LONGEST_ANCHOR = 5  # words
NEAR = 1.0  # seconds between two times that hypotheses give the same word
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # faster-whisper's default
EARLY = 0.1  # seconds by which a new word may seem to begin before the last committed one is over


@dataclass(frozen=True, slots=True)
class Heard:
    """One hypothesis: its words and the ends of its segments, in seconds of the audio that was decoded."""

    words: tuple[Word, ...]
    segment_ends: tuple[float, ...]


class Ear(Protocol):
    """Decodes audio: float32 (samples,) at 16 kHz, after text that was said before it."""

    def __call__(self, samples: Samples, prompt: str) -> Heard: ...


class LocalAgreement:
    """The policy, as a session of events: audio is pushed, words that are final and words that are not come out."""

    def __init__(self, ear: Ear, step: float, language: str = "en", trim: float = 15.0) -> None:
        self._ear, self._language = ear, language
        self._step, self._trim_above = round(step * SAMPLE_RATE), trim
        self._audio = np.zeros(0, np.float32)
        self._start = 0.0  # of the audio, in seconds of the stream
        self._fresh: list[Samples] = []
        self._before = ""  # committed text whose audio is gone
        self._committed: list[Word] = []  # whose audio is still there
        self._until = 0.0  # end of the last committed word
        self._guess: list[Word] = []
        self._shown = ""

    def push(self, chunk: Samples, /) -> Iterator[Event]:
        """Takes in float32 (samples,) at 16 kHz; decodes once a step's worth has come in."""
        self._fresh.append(chunk)
        if sum(part.size for part in self._fresh) >= self._step:
            yield from self._decode()

    def finish(self) -> Iterator[Event]:
        """Decodes what has come in since, and commits the last hypothesis."""
        if any(part.size for part in self._fresh):
            yield from self._decode()
        if self._guess:
            yield self._commit(self._guess)
            self._guess = []

    def _decode(self) -> Iterator[Event]:
        self._audio = np.concatenate([self._audio, *self._fresh])
        self._fresh = []
        heard = self._ear(self._audio, self._before[-PROMPT_CHARACTERS:])
        words = [replace(w, start=w.start + self._start, end=w.end + self._start) for w in heard.words]
        words = self._new(words)
        agreed = self._same(self._guess, words)
        self._guess = words[agreed:]
        if agreed:
            yield self._commit(words[:agreed])
        shown = "".join(word.word for word in self._guess)
        if agreed or shown != self._shown:
            self._shown = shown
            yield Partial(shown, self._guess[0].start if self._guess else self._until)
        self._shorten([end + self._start for end in heard.segment_ends])

    def _commit(self, words: Sequence[Word]) -> Committed:
        self._committed += words
        self._until = words[-1].end
        return Committed("".join(word.word for word in words), tuple(words), self._language)

    def _new(self, words: list[Word]) -> list[Word]:
        """What of a hypothesis comes after the committed words."""
        for count in range(min(LONGEST_ANCHOR, len(self._committed)), 0, -1):
            last = self._committed[-count:]
            ends = (i + count for i in range(len(words) - count + 1) if self._same(last, words[i:]) == count)
            apart = {end: abs(words[end - 1].end - self._until) for end in ends}
            if apart and min(apart.values()) < NEAR:
                return words[min(apart, key=lambda end: apart[end]) :]
        return [word for word in words if word.start > self._until - EARLY]

    def _same(self, before: Sequence[Word], after: Sequence[Word]) -> int:
        """How many words at the beginning are the same."""
        count = 0
        for old, new in zip(before, after, strict=False):
            if words_of(old.word, self._language) != words_of(new.word, self._language):
                break
            count += 1
        return count

    def _shorten(self, segment_ends: Sequence[float]) -> None:
        """Lets audio go that is not needed: complete segments that are final, or the oldest where nothing is."""
        seconds = self._audio.size / SAMPLE_RATE
        if seconds <= self._trim_above:
            return
        # The last segment may still go on, so that its end is none to cut at.
        final = [end for end in segment_ends[:-1] if self._start < end <= self._until] if self._committed else []
        if final:
            self._cut(max(final))
        elif seconds > TRIM_ANYWHERE:
            oldest = self._start + seconds - self._trim_above
            self._cut(self._until if self._committed else max(oldest, self._until))

    def _cut(self, at: float) -> None:
        samples = min(max(0, round((at - self._start) * SAMPLE_RATE)), self._audio.size)
        self._audio = self._audio[samples:].copy()
        self._start += samples / SAMPLE_RATE
        gone = [word for word in self._committed if word.end <= at]
        self._committed = self._committed[len(gone) :]
        self._before = (self._before + "".join(word.word for word in gone))[-2 * PROMPT_CHARACTERS :]


class FasterWhisperLive:
    """faster-whisper in int8 under the policy; one model, a session a stream. `vad` is faster-whisper's own."""

    def __init__(self, folder: Path, threads: int, step: float, beam_size: int, vad: bool) -> None:
        self._folder, self._threads = folder, threads
        self._step, self._beam_size, self._vad = step, beam_size, vad

    def load(self) -> None:
        self._model = faster_whisper.WhisperModel(
            str(self._folder), device="cpu", compute_type="int8", cpu_threads=self._threads
        )

    def session(self, language: str) -> LocalAgreement:
        return LocalAgreement(lambda samples, prompt: self._hear(samples, prompt, language), self._step, language)

    def transcribe(self, samples: Samples, language: str) -> tuple[str, tuple[Word, ...]]:
        heard = self._hear(samples, "", language)
        return "".join(word.word for word in heard.words).strip(), heard.words

    def _hear(self, samples: Samples, prompt: str, language: str) -> Heard:
        found, _ = self._model.transcribe(
            samples,
            language=language,
            beam_size=self._beam_size,
            temperature=0.0 if self._beam_size == 1 else TEMPERATURES,
            initial_prompt=prompt or None,
            word_timestamps=True,
            vad_filter=self._vad,
        )
        segments = list(found)
        words = (Word(w.start, w.end, w.word, w.probability) for segment in segments for w in segment.words or ())
        return Heard(tuple(words), tuple(segment.end for segment in segments))

    def describe(self) -> Mapping[str, str]:
        return {
            "faster-whisper": faster_whisper.__version__,
            "ctranslate2": ctranslate2.__version__,
            "compute_type": "int8",
            "policy": "LocalAgreement-2",
            "step_s": str(self._step),
            "beam_size": str(self._beam_size),
            "vad": "faster-whisper's" if self._vad else "none",
        }


def build(folder: Path, threads: int, step: float, beam_size: int, vad: bool = False) -> FasterWhisperLive:
    """The system for the CTranslate2 model in `folder`."""
    return FasterWhisperLive(folder, threads, step, beam_size, vad)
