"""The systems that are measured side by side, behind one Protocol.

Knows the names of the systems and where each one's files lie. Knows nothing of clips, clocks or tables. A
peer's module imports its library at the top, so `create` is where a library is imported and `System.load` is
where weights are read: the two are timed and weighed apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Mono audio at 16 kHz, shape (samples,), full scale 1.0."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What one system heard; `language` is what it was told or detected, None when it does not say."""

    text: str
    language: str | None


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds that an encoder pass and one more token take; README.md says what is included."""

    encoder_s: float
    token_s: float


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Where one model's files lie, a format each; None when no measured system needs that format."""

    bundle: Path | None = None
    hf: Path | None = None
    ct2: Path | None = None
    ggml: Path | None = None

    @classmethod
    def from_json(cls, paths: Mapping[str, str | None]) -> "Artifacts":
        """From JSON values, a path or null for each format."""
        return cls(**{kind: Path(path) for kind, path in paths.items() if path is not None})

    def need(self, kind: str) -> Path:
        """Path of the format `kind`; LookupError when it was not prepared."""
        path: Path | None = getattr(self, kind)
        if path is None:
            raise LookupError(f"no {kind} files for this model: prepare them, or leave the system out with --systems")
        return path


class System(Protocol):
    """One way of running one model. Building it is cheap; `load` reads the weights."""

    def load(self) -> None:
        """Read the weights; after it `transcribe` works without further set-up."""

    def transcribe(self, samples: Samples, language: str | None) -> Transcript:
        """The whole text of `samples` in the system's own defaults, language detected when it is None."""

    def parts(self, samples: Samples, tokens: int) -> Parts | None:
        """Encoder and per-token time over `tokens` forced steps on a clip under 30 s, None if not exposed."""

    def describe(self) -> Mapping[str, str]:
        """Version and the options that matter, to be written beside the figures."""


@runtime_checkable
class BatchingSystem(System, Protocol):
    """A system that can also take many clips in one call."""

    def transcribe_batch(self, clips: list[Samples], language: str | None) -> list[Transcript]:
        """One transcript a clip, in the order given."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the table of systems: its module and options, the format that it reads, its name in tables."""

    module: str
    format: str
    title: str
    options: Mapping[str, int | bool]


SYSTEMS: Mapping[str, Entry] = {
    "sottovoce": Entry("peers.sottovoce", "bundle", "Sottovoce", {}),
    "faster-whisper": Entry(
        "peers.faster_whisper", "ct2", "faster-whisper int8 (beam 5, its default)", {"beam_size": 5}
    ),
    "faster-whisper-greedy": Entry("peers.faster_whisper", "ct2", "faster-whisper int8 (greedy)", {"beam_size": 1}),
    "faster-whisper-batched": Entry(
        "peers.faster_whisper",
        "ct2",
        "faster-whisper int8 batched (beam 5)",
        {"beam_size": 5, "batched": True},
    ),
    "faster-whisper-batched-greedy": Entry(
        "peers.faster_whisper",
        "ct2",
        "faster-whisper int8 batched (greedy)",
        {"beam_size": 1, "batched": True},
    ),
    "whisper.cpp": Entry("peers.whisper_cpp", "ggml", "whisper.cpp q8_0 (greedy)", {}),
    "transformers": Entry("peers.transformers", "hf", "transformers fp32 (greedy)", {}),
}
"""Every system, in the order in which a round visits them."""

OURS = "sottovoce"
FASTER_WHISPER = tuple(name for name, entry in SYSTEMS.items() if entry.module == "peers.faster_whisper")


def create(name: str, artifacts: Artifacts, threads: int) -> System:
    """Import the system's library and build it, weights not yet read. LookupError for an unknown name."""
    if name not in SYSTEMS:
        raise LookupError(f"unknown system {name!r}; choose from {', '.join(SYSTEMS)}")
    entry = SYSTEMS[name]
    build: Callable[..., System] = import_module(entry.module).build
    return build(artifacts.need(entry.format), threads, **entry.options)
