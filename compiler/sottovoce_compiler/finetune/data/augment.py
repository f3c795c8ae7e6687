"""More recordings from those that there are: said faster and slower, one after the other, and with parts hidden.

    speed  each at 0.9 and 1.1 of its speed, pitch included (Ko et al. 2015, "Audio augmentation for speech
           recognition", Interspeech)
    join   each followed by another of its language and task after a pause: a few minutes of data have few words at
           the beginning and the end of what is heard at once
    mask   each with two stretches of time and two bands of frequencies silent (Park et al. 2019, "SpecAugment",
           Interspeech, arXiv 1904.08779; done to the samples): what is hidden is to be told from the rest

They are examples like others, made once, so that lengths are known before training and a run can go on where it
stopped. Knows sounds and when what is said in them begins and ends. Knows no tokens.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sottovoce.audio import SAMPLE_RATE
from sottovoce.errors import InputError

Samples = NDArray[np.float32]

WAYS: Final = ("speed", "join", "mask")
SPEEDS: Final = (0.9, 1.1)
PAUSES: Final = (0.1, 0.6)  # seconds between two that are joined, drawn evenly
MASKS: Final = 2  # of time, and as many of frequency
# The widest of each, drawn evenly from nothing to that: the paper's 100 frames, of short clips a fifth; and its 27 of
# 80 channels, as a share of the mel scale.
MASKED_SECONDS, MASKED_SHARE, MASKED_MELS = 1.0, 0.2, 27 / 80


class Sound(Protocol):
    """Samples that are loaded when they are asked for."""

    def load(self) -> Samples:
        """(n,) float32 at 16 kHz. Raises AudioError for what is not usable audio."""
        ...


@dataclass(frozen=True, slots=True)
class Spoken:
    """What is said, from `start` to `end` in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """A sound and what is said in it. `digest` tells sounds apart, `line` is where it stands in the data; of two that
    are joined, the first."""

    sound: Sound
    seconds: float
    digest: bytes
    spoken: tuple[Spoken, ...]
    language: str | None
    task: str
    line: int

    @property
    def text(self) -> str:
        """All that is said."""
        return " ".join(one.text for one in self.spoken)


@dataclass(frozen=True, slots=True)
class Faster:
    """A sound at another speed."""

    sound: Sound
    factor: float

    def load(self) -> Samples:
        """See `Sound.load`."""
        import soxr

        return np.asarray(soxr.resample(self.sound.load(), SAMPLE_RATE * self.factor, SAMPLE_RATE), np.float32)


@dataclass(frozen=True, slots=True)
class Joined:
    """Two sounds with a pause between them, in samples."""

    first: Sound
    second: Sound
    pause: int

    def load(self) -> Samples:
        """See `Sound.load`."""
        return np.concatenate([self.first.load(), np.zeros(self.pause, np.float32), self.second.load()])


@dataclass(frozen=True, slots=True)
class Masked:
    """A sound that is silent in `stretches` (first sample, one after the last) and has nothing in `bands` (Hz)."""

    sound: Sound
    stretches: tuple[tuple[int, int], ...]
    bands: tuple[tuple[float, float], ...]

    def load(self) -> Samples:
        """See `Sound.load`."""
        samples = self.sound.load()
        spectrum = np.fft.rfft(samples)
        hertz = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
        for low, high in self.bands:
            spectrum[(hertz >= low) & (hertz < high)] = 0
        heard = np.fft.irfft(spectrum, samples.size).astype(np.float32)
        for first, last in self.stretches:
            heard[first:last] = 0
        return heard


def ways_of(asked: str) -> tuple[str, ...]:
    """The names in a list with commas, "none" for none. Raises InputError for one that is not known."""
    names = tuple(name.strip() for name in asked.split(",") if name.strip())
    if names == ("none",):
        return ()
    for name in names:
        if name not in WAYS:
            raise InputError(f"augment = {asked!r:.80}; {name!r:.40} is none of {', '.join(WAYS)} (or none)")
    return tuple(way for way in WAYS if way in names)


def more_of(
    utterances: Sequence[Utterance],
    ways: Sequence[str],
    seed: int,
    fits: Callable[[Utterance], bool],
) -> list[Utterance]:
    """What the `ways` make of `utterances`, without those themselves; what does not fit is not made."""
    made: list[Utterance] = []
    if "speed" in ways:
        made += [_faster(one, factor) for one in utterances for factor in SPEEDS]
    if "join" in ways:
        made += [_joined(one, other, pause) for one, other, pause in _pairs(utterances, seed, fits)]
    if "mask" in ways:
        draw = random.Random(f"{seed} mask")
        made += [_masked(one, draw) for one in utterances]
    return [one for one in made if fits(one)]


def _pairs(
    utterances: Sequence[Utterance], seed: int, fits: Callable[[Utterance], bool]
) -> list[tuple[Utterance, Utterance, int]]:
    """Each with another that goes with it, and the samples of the pause; those for which there is none are left out."""
    draw, found = random.Random(f"{seed} join"), []
    for one in utterances:
        pause = round(draw.uniform(*PAUSES) * SAMPLE_RATE)
        alike = [other for other in utterances if (other.language, other.task) == (one.language, one.task)]
        for other in draw.sample(alike, len(alike)):
            if fits(_joined(one, other, pause)):
                found.append((one, other, pause))
                break
    return found


def _faster(one: Utterance, factor: float) -> Utterance:
    spoken = tuple(Spoken(part.text, part.start / factor, part.end / factor) for part in one.spoken)
    digest = _digest(one.digest, f"speed {factor}".encode())
    return replace(one, sound=Faster(one.sound, factor), seconds=one.seconds / factor, digest=digest, spoken=spoken)


def _joined(one: Utterance, other: Utterance, pause: int) -> Utterance:
    begins = one.seconds + pause / SAMPLE_RATE
    later = tuple(Spoken(part.text, part.start + begins, part.end + begins) for part in other.spoken)
    return replace(
        one,
        sound=Joined(one.sound, other.sound, pause),
        seconds=begins + other.seconds,
        digest=_digest(one.digest, other.digest, f"join {pause}".encode()),
        spoken=one.spoken + later,
    )


def _masked(one: Utterance, draw: random.Random) -> Utterance:
    samples = round(one.seconds * SAMPLE_RATE)
    widest = min(MASKED_SECONDS * SAMPLE_RATE, MASKED_SHARE * samples)
    stretches, bands = [], []
    for _ in range(MASKS):
        width = round(draw.uniform(0, widest))
        first = draw.randint(0, samples - width)
        stretches.append((first, first + width))
        share = draw.uniform(0, MASKED_MELS)
        low = draw.uniform(0, 1 - share)
        bands.append((_hertz(low), _hertz(low + share)))
    digest = _digest(one.digest, f"mask {stretches} {bands}".encode())
    return replace(one, sound=Masked(one.sound, tuple(stretches), tuple(bands)), digest=digest)


def _hertz(share: float) -> float:
    """The frequency at a share of the mel scale up to half the sample rate (O'Shaughnessy's 1127 ln(1 + f / 700))."""
    return float(700 * np.expm1(share * np.log1p(SAMPLE_RATE / 2 / 700)))


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()
