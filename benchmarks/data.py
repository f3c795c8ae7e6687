"""Picks from a manifest what each question needs, and reads audio into memory: no system is timed on it.

Knows the kinds that a manifest gives its clips. Knows nothing of systems.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from peers import Samples

from sottovoce_compiler.report.dataset import Clip, Dataset, read_manifest

SAMPLE_RATE = 16_000
READ_KINDS = frozenset({"read", "speech"})
BATCH_SECONDS = (2.0, 12.0)  # shortest and longest clip of a batch


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip with its audio, 16 kHz mono."""

    clip: Clip
    samples: Samples


class Recordings:
    """One manifest; every pick is a function of the manifest alone, and so the same in every run."""

    def __init__(self, manifest: Path) -> None:
        self.dataset: Dataset = read_manifest(manifest)

    def named(self, name: str) -> Heard:
        """The clip whose path is or ends in `name`; LookupError when there is not exactly one."""
        found = [clip for clip in self.dataset.clips if f"/{clip.name}".endswith(f"/{name}")]
        if len(found) != 1:
            raise LookupError(f"{len(found)} clips of {self.dataset.name} are called {name!r}; --clip must name one")
        return hear(found[0])

    def long(self) -> Heard:
        """The longest clip of kind "long"; LookupError when there is none."""
        found = [clip for clip in self.dataset.clips if clip.kind == "long"]
        if not found:
            raise LookupError(f"{self.dataset.name} has no clip of kind 'long'; leave that stage out with --stages")
        return hear(max(found, key=lambda clip: clip.seconds))

    def read_english(self) -> list[Heard]:
        """English speech that was read or delivered as prose, short clips."""
        return [hear(clip) for clip in self._speech() if clip.language == "en" and clip.kind in READ_KINDS]

    def other_languages(self) -> list[Heard]:
        """All short speech that is not English, of every kind."""
        return [hear(clip) for clip in self._speech() if clip.language not in (None, "en")]

    def non_speech(self) -> list[Heard]:
        """Noise, music and silence."""
        return [hear(clip) for clip in self.dataset.clips if not clip.is_speech]

    def batch(self, count: int) -> list[Heard]:
        """`count` English clips of 2 to 12 s, taken at even steps from all of them in name order."""
        shortest, longest = BATCH_SECONDS
        usable = [c for c in self._speech() if c.language == "en" and shortest <= c.seconds <= longest]
        if len(usable) < count:
            raise LookupError(
                f"{self.dataset.name} has {len(usable)} English clips of 2 to 12 s, a batch needs {count}"
            )
        usable.sort(key=lambda clip: clip.name)
        return [hear(usable[index * len(usable) // count]) for index in range(count)]

    def _speech(self) -> Sequence[Clip]:
        return [clip for clip in self.dataset.clips if clip.is_speech and clip.kind != "long"]


def hear(clip: Clip) -> Heard:
    """Read a clip."""
    return Heard(clip, load(clip.file))


def load(file: Path) -> Samples:
    """float32 (samples,) at 16 kHz; channels are averaged."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1, dtype=np.float32)
    resampled = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
    return np.ascontiguousarray(resampled, dtype=np.float32)
