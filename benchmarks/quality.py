"""Errors of a system over clips: words, or characters where a language is written without spaces.

Counting and normalising are the compiler's, so that these figures compare with those in a bundle's report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from data import Heard
from peers import System

from sottovoce_compiler.report.dataset import Clip
from sottovoce_compiler.report.normalize import counts_characters, units
from sottovoce_compiler.report.score import ErrorCounts, bootstrap_interval, count_errors, total


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one system over a group of clips; `unit` is what is counted, `texts` what it said."""

    unit: str
    counts: ErrorCounts
    interval: tuple[float, float] | None
    texts: Mapping[str, str]

    def to_json(self) -> Mapping[str, object]:
        """Everything, with the rate worked out."""
        return {
            "rate": self.counts.rate,
            "interval": self.interval,
            "unit": self.unit,
            **asdict(self.counts),
            "texts": dict(self.texts),
        }


@dataclass(frozen=True, slots=True)
class Invented:
    """Words (characters in zh, ja and the like) that a system put where nothing was said."""

    words: int
    seconds: float
    texts: Mapping[str, str]

    def to_json(self) -> Mapping[str, object]:
        """Everything, with the rate per minute worked out."""
        per_minute = 60 * self.words / self.seconds
        return {
            "words": self.words,
            "seconds": self.seconds,
            "per_minute": per_minute,
            "texts": dict(self.texts),
        }


def score(system: System, clips: Sequence[Heard]) -> Score:
    """Each clip once, the system told its language; `clips` all count words or all count characters."""
    texts = {heard.clip.name: system.transcribe(heard.samples, heard.clip.language).text for heard in clips}
    counts = [count_errors(h.clip.text, texts[h.clip.name], h.clip.language) for h in clips]
    unit = "characters" if clips and counts_characters(clips[0].clip.language) else "words"
    return Score(unit, total(counts), bootstrap_interval(counts), texts)


def score_text(clip: Clip, text: str) -> Score:
    """One recording that was transcribed elsewhere."""
    unit = "characters" if counts_characters(clip.language) else "words"
    return Score(unit, count_errors(clip.text, text, clip.language), None, {clip.name: text})


def by_unit(clips: Sequence[Heard]) -> dict[str, list[Heard]]:
    """Clips whose words are counted, and clips whose characters are; an empty group is left out."""
    groups: dict[str, list[Heard]] = {"words": [], "characters": []}
    for heard in clips:
        groups["characters" if counts_characters(heard.clip.language) else "words"].append(heard)
    return {unit: members for unit, members in groups.items() if members}


def invented(system: System, clips: Sequence[Heard]) -> Invented:
    """Each clip once, the language left to the system."""
    transcripts = {heard.clip.name: system.transcribe(heard.samples, None) for heard in clips}
    words = sum(len(units(said.text, said.language)) for said in transcripts.values())
    texts = {name: said.text for name, said in transcripts.items()}
    return Invented(words, sum(heard.clip.seconds for heard in clips), texts)
