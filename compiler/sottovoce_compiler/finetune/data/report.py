"""What is known of a set of examples once it is made: how many, how long, what was left out and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.records import Kind
from sottovoce_compiler.report.table import Table

PERCENTILES: Final = (50, 90, 99)
_BAR = 40  # characters of the longest bar
# What was remarkable in the data, by the names under which it is counted.
NOTES: Final[Mapping[str, str]] = {
    "rewritten": "earlier answers not learned, as the template writes them otherwise once a conversation goes on",
    "separate": "earlier answers that the template writes otherwise once a conversation goes on, learned on their own",
    "parted": "answers that begin otherwise than what the template gives a model to go on from, learned from there on",
    "merged": "conversations in which a token would reach over the beginning of an answer, cut there",
    "unasked": "answers not learned, as they are the first message and nothing asks for them",
    "uncalled": "answers not learned, as the template does not write their calls",
    "unthought": "answers learned without their reasoning, as the template does not write it",
    "unended": "answers that the template does not end, ended by the token that ends text",
    "plain": "instructions asked in plain text, as the model has no chat template",
    "spaced": "prompts that end in a space, which most tokenizers keep with the next word; leave it to the completion",
    "spelled": "texts with the spelling of a control token, which is text here; write conversations as messages",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One side of the split. `lengths` are those of all examples, in tokens."""

    lengths: tuple[int, ...]
    labelled: int

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Part":
        return cls(tuple(map(len, examples)), sum(example.labelled for example in examples))

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def percentiles(self) -> tuple[int, ...]:
        """Shortest, `PERCENTILES` and longest; zeros where there is nothing."""
        if not self.lengths:
            return (0,) * (len(PERCENTILES) + 2)
        between = np.percentile(self.lengths, PERCENTILES, method="inverted_cdf")
        return (min(self.lengths), *map(int, between), max(self.lengths))

    def histogram(self) -> tuple[tuple[int, int, int], ...]:
        """Least length, greatest length and how many, for each doubling of the length that occurs."""
        found: dict[int, int] = {}
        for length in self.lengths:
            found[length.bit_length()] = found.get(length.bit_length(), 0) + 1
        some = range(min(found, default=0), max(found, default=-1) + 1)
        return tuple((1 << (bits - 1), (1 << bits) - 1, found.get(bits, 0)) for bits in some)

    def to_json(self) -> dict[str, Any]:
        names = ("shortest", *(f"p{one}" for one in PERCENTILES), "longest")
        return {
            "examples": len(self.lengths),
            "tokens": self.tokens,
            "labelled": self.labelled,
            "lengths": dict(zip(names, self.percentiles(), strict=True)),
        }


@dataclass(frozen=True, slots=True)
class DataReport:
    """`cut` and `dropped` examples were longer than `limit` tokens, `unlearned` ones had nothing left to learn;
    `repeated` and `shared` are those of the split. `date` is the day that the template writes, None where it writes
    none. `sha256` is of all that is learned and measured: the same data, model and options give the same."""

    kind: Kind
    lines: int
    limit: int
    train: Part
    eval: Part
    cut: int
    dropped: int
    unlearned: int
    repeated: int
    shared: int
    noted: Mapping[str, int]
    date: str | None
    sha256: str

    def to_json(self) -> dict[str, Any]:
        counts = ("kind", "lines", "limit", "cut", "dropped", "unlearned", "repeated", "shared", "date", "sha256")
        return {
            **{name: getattr(self, name) for name in counts},
            "train": self.train.to_json(),
            "eval": self.eval.to_json(),
            "noted": dict(self.noted),
        }

    def notes(self) -> tuple[str, ...]:
        """What a user should know, a line each; nothing where nothing was left out or changed."""
        found = {
            f"examples cut to {self.limit} tokens": self.cut,
            f"examples dropped, longer than {self.limit} tokens": self.dropped,
            "examples dropped, as nothing to learn was left of them": self.unlearned,
            "examples taken out of train, as they are in eval too": self.shared,
            "examples of train that repeat an earlier one, kept": self.repeated,
            **{NOTES[name]: count for name, count in self.noted.items()},
        }
        dated = [f"the template writes the date: {self.date}"] if self.date else []
        return (*(f"{text}: {count}" for text, count in found.items() if count), *dated)

    def tables(self) -> tuple[Table, ...]:
        """Both parts beside each other, and how long the examples of train are."""
        heads = (
            "",
            "examples",
            "tokens",
            "learned",
            "share",
            "shortest",
            *(f"p{one}" for one in PERCENTILES),
            "longest",
        )
        rows = tuple(_row(name, part) for name, part in (("train", self.train), ("eval", self.eval)) if part.lengths)
        most = max((count for _, _, count in self.train.histogram()), default=1)
        bars = tuple(
            (f"{least} to {greatest}", str(count), "#" * -(-_BAR * count // most))
            for least, greatest, count in self.train.histogram()
        )
        return (
            Table(f"{self.lines} lines of {self.kind} data", heads, rows),
            Table("", ("tokens", "examples", ""), bars),
        )

    def __str__(self) -> str:
        return "\n".join([*(table.plain() for table in self.tables()), *self.notes()])


def _row(name: str, part: Part) -> tuple[str, ...]:
    share = f"{part.labelled / part.tokens:.0%}"
    return (name, str(len(part.lengths)), str(part.tokens), str(part.labelled), share, *map(str, part.percentiles()))
