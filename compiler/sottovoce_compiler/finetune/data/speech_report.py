"""What is in speech data, for a person and for a script. Knows examples by their lengths."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sottovoce_compiler.finetune.data.split import Split
from sottovoce_compiler.report.table import Table


@dataclass(frozen=True, slots=True)
class SpeechReport:
    """What is in the data: counts of lines, and seconds and tokens of each part."""

    lines: int
    dropped: int
    repeated: int
    shared: int
    parts: Mapping[str, Mapping[str, float]]
    sha256: str

    @classmethod
    def of(cls, lines: int, split: Split[Any], dropped: int) -> "SpeechReport":
        """Of a split of `SpeechExample`s."""
        parts = {"train": split.train, "eval": split.eval}
        digest = hashlib.sha256()
        for examples in parts.values():
            digest.update(len(examples).to_bytes(8, "little"))
            for example in examples:
                digest.update(example.digest())
        described = {name: _described(examples) for name, examples in parts.items()}
        return cls(lines, dropped, split.repeated, split.shared, described, digest.hexdigest())

    def tables(self) -> list[Table]:
        """For a person."""
        rows = tuple((name, *(f"{value:g}" for value in part.values())) for name, part in self.parts.items())
        return [Table(f"speech, {self.lines} lines", ("", "examples", "minutes", "longest (s)", "tokens"), rows)]

    def notes(self) -> list[str]:
        """What is worth knowing, in lines."""
        notes = [f"{self.dropped} recordings were dropped: they are too long"] if self.dropped else []
        notes += [f"{self.repeated} examples are exact duplicates of earlier ones"] if self.repeated else []
        notes += [f"{self.shared} were in the evaluation data too, and are not trained on"] if self.shared else []
        return notes

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return {
            "kind": "speech",
            "lines": self.lines,
            "dropped": self.dropped,
            "repeated": self.repeated,
            "shared": self.shared,
            **{name: dict(part) for name, part in self.parts.items()},
            "sha256": self.sha256,
        }


def _described(examples: Sequence[Any]) -> dict[str, float]:
    return {
        "examples": len(examples),
        "minutes": round(sum(example.seconds for example in examples) / 60, 2),
        "longest_s": round(max((example.seconds for example in examples), default=0.0), 2),
        "tokens": sum(example.labelled for example in examples),
    }
