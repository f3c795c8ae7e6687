"""The systems that stream, behind one Protocol; the counterpart of `__init__.py` for live audio.

Knows names, modules and options. Knows nothing of clips, clocks or tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from peers import Artifacts, Samples
from sottovoce.types import Word
from sottovoce_compiler.report.stream_clock import Session


class LiveSystem(Protocol):
    """One way of streaming with one model. Building it is cheap; `load` reads the weights."""

    def load(self) -> None:
        """Read the weights; after it `session` is ready at once."""

    def session(self, language: str) -> Session:
        """A new stream of speech in a language that is known (a code such as "en")."""

    def transcribe(self, samples: Samples, language: str) -> tuple[str, tuple[Word, ...]]:
        """Offline, by the same model with the same beam: the whole text, and its words with times."""

    def describe(self) -> Mapping[str, str]:
        """Versions and the options that matter."""


@dataclass(frozen=True, slots=True)
class LiveEntry:
    """A row of the table: module and options, the format of weights that it reads, its name in tables."""

    module: str
    format: str
    title: str
    options: Mapping[str, float | bool]


_AGREEMENT = "peers.local_agreement"
LIVE_SYSTEMS: Mapping[str, LiveEntry] = {
    "sottovoce": LiveEntry("peers.sottovoce_live", "bundle", "Sottovoce", {}),
    "agreement": LiveEntry(_AGREEMENT, "ct2", "LocalAgreement, 1.0 s, beam 5", {"step": 1.0, "beam_size": 5}),
    "agreement-greedy": LiveEntry(_AGREEMENT, "ct2", "LocalAgreement, 1.0 s, greedy", {"step": 1.0, "beam_size": 1}),
    "agreement-0.3": LiveEntry(_AGREEMENT, "ct2", "LocalAgreement, 0.3 s, beam 5", {"step": 0.3, "beam_size": 5}),
    "agreement-0.3-greedy": LiveEntry(
        _AGREEMENT, "ct2", "LocalAgreement, 0.3 s, greedy", {"step": 0.3, "beam_size": 1}
    ),
    "agreement-greedy-vad": LiveEntry(
        _AGREEMENT, "ct2", "LocalAgreement, 1.0 s, greedy, VAD", {"step": 1.0, "beam_size": 1, "vad": True}
    ),
}
"""Every system, in the order in which a round visits them. LocalAgreement runs over faster-whisper in int8."""

OURS = "sottovoce"


def create_live(name: str, artifacts: Artifacts, threads: int) -> LiveSystem:
    """Import the system's library and build it, weights not yet read. LookupError for an unknown name."""
    if name not in LIVE_SYSTEMS:
        raise LookupError(f"unknown system {name!r}; choose from {', '.join(LIVE_SYSTEMS)}")
    entry = LIVE_SYSTEMS[name]
    build: Callable[..., LiveSystem] = import_module(entry.module).build
    return build(artifacts.need(entry.format), threads, **entry.options)
