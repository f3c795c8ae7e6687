"""Text data of every kind, from a file to the examples of a split: read this from top to bottom."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, cast

from sottovoce.errors import InputError
from sottovoce_compiler.families import language_model
from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.conversation import conversations
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.instruction import instructions, prompts
from sottovoce_compiler.finetune.data.lines import Faults, Lines, check_lines
from sottovoce_compiler.finetune.data.records import ChatLine, InstructionLine, Kind, PromptLine, Record, TextLine
from sottovoce_compiler.finetune.data.report import DataReport, Part
from sottovoce_compiler.finetune.data.split import Split, by_file, by_seed
from sottovoce_compiler.finetune.data.text import texts
from sottovoce_compiler.sources.checkpoint import Checkpoint

Earlier = Literal["leave", "separate"]
Overflow = Literal["error", "cut", "drop"]

TEXT_KINDS: Final[tuple[Kind, ...]] = ("chat", "instruction", "prompt", "text")
EARLIER: Final[tuple[Earlier, ...]] = ("leave", "separate")
OVERFLOWS: Final[tuple[Overflow, ...]] = ("error", "cut", "drop")
_AT_ONCE = 1024  # lines that are encoded together


@dataclass(frozen=True, slots=True)
class TextOptions:
    """`max_tokens` is the longest example, the model's context where it is None; what is longer is refused, cut at its
    end or dropped, as `overflow` says. `answer_marker`: of a text what comes after its last place is learned.
    `earlier_answers` that the template writes otherwise once a conversation goes on are left out, or learned in
    examples of their own ("separate"). `eval_fraction` of the data is kept to measure on, chosen by `seed`. `variables`
    are what else the chat template may read (enable_thinking), `date` the day that it writes, now where it is None."""

    max_tokens: int | None = None
    overflow: Overflow = "error"
    answer_marker: str | None = None
    earlier_answers: Earlier = "leave"
    eval_fraction: float = 0.0
    seed: int = 0
    variables: Mapping[str, Any] = field(default_factory=dict)
    date: datetime | None = None

    def __post_init__(self) -> None:
        if self.overflow not in OVERFLOWS:
            raise InputError(f"overflow {self.overflow!r}; one of {', '.join(OVERFLOWS)}")
        if self.earlier_answers not in EARLIER:
            raise InputError(f"earlier_answers {self.earlier_answers!r}; one of {', '.join(EARLIER)}")
        if self.answer_marker is not None and not self.answer_marker:
            raise InputError("an empty answer marker stands everywhere; give the text after which answers begin")
        if not 0 <= self.eval_fraction < 1:
            raise InputError(f"an eval fraction of {self.eval_fraction!r}; 0 up to, but not with, 1 is possible")


@dataclass(frozen=True, slots=True, eq=False)
class TextData:
    """Examples to learn and to measure on. `coder` made them, and tells what an answer's tokens say."""

    train: tuple[Example, ...]
    eval: tuple[Example, ...]
    report: DataReport
    coder: Coder

    @classmethod
    def load(
        cls,
        path: Path,
        checkpoint: Checkpoint,
        options: TextOptions | None = None,
        *,
        eval_data: Path | None = None,
    ) -> "TextData":
        """The examples of the file at `path` for the model of `checkpoint`, of which no weights are read.

        With `eval_data` all of that file is eval and all of `path`, but for duplicates, train; `eval_fraction` is not
        used. Raises DataError that names the lines that cannot be used, InputError where nothing is left or the
        options and the model do not go together, SourceError and UnsupportedModelError for the model.
        """
        options = options or TextOptions()
        lines = check_lines(path, TEXT_KINDS)
        others = check_lines(eval_data, TEXT_KINDS) if eval_data is not None else None
        spec = language_model(checkpoint).spec
        coder = Coder(checkpoint, spec, variables=options.variables, date=options.date)
        making = _Making(coder, options)
        made = making.examples(lines)
        if others is None:
            split = by_seed(made, options.eval_fraction, options.seed)
        else:
            split = by_file(made, making.examples(others))
        for name, part in ((path, split.train), (eval_data, split.eval)):
            if name is not None and not part:
                raise InputError(f"{name.name}: nothing is left to use of {lines.count} lines; {making.left_out()}")
        report = making.report(lines.kind, lines.count + (others.count if others else 0), split)
        return cls(split.train, split.eval, report, coder)


class _Making:
    """Makes examples, and counts what is left out."""

    def __init__(self, coder: Coder, options: TextOptions) -> None:
        self._coder, self._options = coder, options
        self._limit = options.max_tokens or coder.context
        if not 2 <= self._limit <= coder.context:
            raise InputError(
                f"examples of up to {options.max_tokens} tokens; {coder.name} has room for 2 to {coder.context}"
            )
        self._notes: Counter[str] = Counter()
        self._cut = self._dropped = self._unlearned = 0

    def examples(self, lines: Lines) -> list[Example]:
        """The examples of a file. Raises DataError for lines of which none can be made, once all were tried."""
        faults = Faults(lines.path.name)
        found = [
            example
            for chunk in _chunks(lines, _AT_ONCE)
            for made in self._made(lines.kind, chunk, faults)
            if (example := self._fitted(made, faults)) is not None
        ]
        faults.check(lines.count)
        return found

    def report(self, kind: Kind, lines: int, split: Split[Example]) -> DataReport:
        return DataReport(
            kind=kind,
            lines=lines,
            limit=self._limit,
            train=Part.of(split.train),
            eval=Part.of(split.eval),
            cut=self._cut,
            dropped=self._dropped,
            unlearned=self._unlearned,
            repeated=split.repeated,
            shared=split.shared,
            noted={name: count for name, count in self._notes.items() if count},
            date=self._coder.date.date().isoformat() if self._coder.dated else None,
            sha256=_digest(split.train, split.eval),
        )

    def left_out(self) -> str:
        return f"{self._dropped} are longer than {self._limit} tokens, {self._unlearned} have nothing to learn"

    def _made(self, kind: Kind, records: list[Record], faults: Faults) -> list[Example]:
        coder, notes = self._coder, self._notes
        if self._options.answer_marker is not None and kind != "text":
            raise InputError(f"an answer marker is for text data; in {kind} data the answers are told apart already")
        match kind:
            case "chat":
                separate = self._options.earlier_answers == "separate"
                return conversations(coder, cast(list[ChatLine], records), separate, faults, notes)
            case "instruction":
                return instructions(coder, cast(list[InstructionLine], records), faults, notes)
            case "prompt":
                return prompts(coder, cast(list[PromptLine], records), notes)
            case _:
                return texts(coder, cast(list[TextLine], records), self._options.answer_marker, faults, notes)

    def _fitted(self, example: Example, faults: Faults) -> Example | None:
        if len(example) > self._limit:
            if self._options.overflow == "error":
                faults.add(example.line, f"is {len(example)} tokens, at most {self._limit} fit; cut or drop such lines")
                return None
            if self._options.overflow == "drop":
                self._dropped += 1
                return None
            example = example.cut(self._limit)
            self._cut += 1
        if not example.labelled:
            self._unlearned += 1
            return None
        return example


def _chunks(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    rest = iter(records)
    while chunk := list(islice(rest, size)):
        yield chunk


def _digest(*parts: Sequence[Example]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        for example in part:
            found.update(example.digest())
    return found.hexdigest()
