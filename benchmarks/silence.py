"""What a stream costs while nobody speaks: digital silence, and real noise at a low level.

Knows clips and sounds. Which of the noises hold speech is asked of faster-whisper's detector: ours is not asked about
itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from data import SAMPLE_RATE, Heard
from peers import Samples

SECONDS = 60.0
LEVEL_DB = -50.0  # root mean square of each noise, below full scale

FindsSpeech = Callable[[Samples], bool]


@dataclass(frozen=True, slots=True)
class Quiet:
    """A sound in which nobody speaks; `clips` it was made of, and those that were left out as speech was found."""

    samples: Samples
    clips: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def digital() -> Quiet:
    """Zeros."""
    return Quiet(np.zeros(round(SECONDS * SAMPLE_RATE), np.float32))


def noise(clips: Sequence[Heard], finds_speech: FindsSpeech) -> Quiet | None:
    """The noises one after the other, each at `LEVEL_DB`, repeated to `SECONDS`; None where none is left."""
    usable = [heard for heard in clips if heard.clip.kind == "noise" and np.any(heard.samples)]
    kept = [heard for heard in usable if not finds_speech(heard.samples)]
    if not kept:
        return None
    once = np.concatenate([_at_level(heard.samples) for heard in kept])
    names = tuple(heard.clip.name for heard in kept)
    left_out = tuple(heard.clip.name for heard in usable if heard.clip.name not in names)
    return Quiet(np.resize(once, round(SECONDS * SAMPLE_RATE)), names, left_out)


def _at_level(samples: Samples) -> Samples:
    level = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
    return np.asarray(samples * (10 ** (LEVEL_DB / 20) / level), np.float32)


def finds_speech(samples: Samples) -> bool:
    """What faster-whisper's copy of Silero says, in its defaults. LookupError where it is not installed."""
    try:
        from faster_whisper.vad import get_speech_timestamps
    except ImportError:
        raise LookupError("telling noise from speech needs faster-whisper: pip install faster-whisper") from None
    return bool(get_speech_timestamps(samples))
