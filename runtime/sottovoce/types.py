"""What goes into a transcription and what comes out: plain frozen data, no behaviour.

Field names of results follow faster-whisper, so that code moves over by changing an import.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its place in the audio; times in seconds from its start, `word` keeps its leading space."""

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech that is read as one line; times in seconds from the start of the audio."""

    id: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, slots=True)
class TranscriptionInfo:
    """What is known of the whole audio; durations in seconds."""

    language: str
    language_probability: float
    duration: float
    duration_after_vad: float
    all_language_probs: tuple[tuple[str, float], ...] | None = None
    task: str = "transcribe"


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """How to decode; the defaults were chosen by measurement (docs/decisions.md).

    Thresholds are those of Radford et al. 2022 (arXiv 2212.04356), section 4.5.
    """

    language: str | None = None
    task: str = "transcribe"
    beam_size: int = 1
    batch_size: int = 8
    temperature: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    initial_prompt: str | None = None
    condition_on_previous_text: bool = False
    word_timestamps: bool = False
    without_timestamps: bool = False
    vad_filter: bool = True
    compression_ratio_threshold: float = 2.4
    log_prob_threshold: float = -1.0
    no_speech_threshold: float = 0.6
    length_penalty: float = 1.0
    suppress_tokens: Sequence[int] = field(default=(-1,))
    seed: int = 0
