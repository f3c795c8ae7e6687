"""JSON lines from a user's file: every line is checked before any is used, and what is wrong is named by its number.

A file is read twice, once to check it and once to use it, and never held whole. Knows bytes, JSON and line numbers;
what a line may be is in `records`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.data.records import Kind, Record, read_record

MAX_LINE = 16 << 20  # bytes
SHOWN = 10  # faults that a message names
_MARK = b"\xef\xbb\xbf"
# What is handed over by mistake now and then, by how it begins.
_OTHERS: Final = (
    (b"\xff\xfe", "UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as UTF-8"),
    (b"\x1f\x8b", "compressed with gzip; unpack it"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"PAR1", "a Parquet file; write it as JSON lines"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line; lines are counted from 1."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class DataError(InputError):
    """Lines that cannot be used. `faults` are the first of `count`, for the message."""

    def __init__(self, name: str, faults: Sequence[Fault], count: int, lines: int) -> None:
        shown = "".join(f"\n  {fault}" for fault in faults)
        some = f" ({len(faults)} shown)" if count > len(faults) else ""
        super().__init__(f"{name}: {count} of {lines} lines cannot be used{some}:{shown}")
        self.faults, self.count = tuple(faults), count


@dataclass(slots=True)
class Faults:
    """Collects what is wrong: all of it counted, the first kept."""

    name: str
    count: int = 0
    first: list[Fault] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Another line that cannot be used."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(Fault(line, reason))

    def check(self, lines: int) -> None:
        """Raises DataError where there are any, of `lines` lines."""
        if self.count:
            raise DataError(self.name, self.first, self.count, lines)


@dataclass(frozen=True, slots=True)
class Lines:
    """A file all of whose lines are sound and of one kind: `count` of them beside `blank` ones."""

    path: Path
    kind: Kind
    count: int
    blank: int

    def __iter__(self) -> Iterator[Record]:
        """The records in order. Raises InputError where the file is no longer what was checked."""
        for line in _raw_lines(self.path):
            if line.content.strip():
                try:
                    kind, record = _record(line, self.path.parent)
                except InputError:
                    kind = None
                if kind != self.kind:
                    raise InputError(f"{self.path.name}: line {line.number} changed while it was read; start again")
                yield record


def check_lines(path: Path, kinds: Sequence[Kind] | None = None) -> Lines:
    """Reads all of the file and says what is in it. Empty lines are skipped.

    Raises DataError, which names the lines, for what is not sound, of another kind than the first, or of none of
    `kinds`; InputError for a file that cannot be read or has no lines.
    """
    faults = Faults(path.name)
    kind: Kind | None = None
    first = count = blank = 0
    for line in _raw_lines(path):
        if not line.content.strip():
            blank += 1
            continue
        count += 1
        try:
            found, _ = _record(line, path.parent)
        except InputError as error:
            faults.add(line.number, str(error))
            continue
        if kind is None:
            kind, first = found, line.number
            if kinds is not None and kind not in kinds:
                raise InputError(f"{path.name}: line {first} is {kind} data; this model takes {' or '.join(kinds)}")
        if found != kind:
            faults.add(line.number, f"is {found} data, line {first} is {kind}; a file holds one kind")
    faults.check(count)
    if kind is None:
        raise InputError(f"{path.name} has no lines of data; each is one JSON object")
    return Lines(path, kind, count, blank)


@dataclass(frozen=True, slots=True)
class _Raw:
    number: int
    content: bytes  # without the line's end; more than MAX_LINE bytes of a line that has more


def _raw_lines(path: Path) -> Iterator[_Raw]:
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no regular file; --data takes a file of JSON lines, which is read twice")
    try:
        with path.open("rb") as file:
            number = 0
            while content := file.readline(MAX_LINE + 1):
                number += 1
                if number == 1:
                    _check_beginning(path, content)
                    content = content.removeprefix(_MARK)
                rest = content
                while len(rest) > MAX_LINE and not rest.endswith(b"\n"):  # what is too long is not kept
                    rest = file.readline(MAX_LINE + 1)
                yield _Raw(number, content.rstrip(b"\r\n"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; --data takes a file of JSON lines") from None


def _check_beginning(path: Path, content: bytes) -> None:
    for beginning, what in _OTHERS:
        if content.startswith(beginning):
            raise InputError(f"{path.name} is {what}; --data takes a file of JSON lines")
    if content.removeprefix(_MARK).lstrip().startswith(b"["):
        raise InputError(f"{path.name} is a JSON list; --data takes JSON lines: one object a line, no comma between")


def _record(line: _Raw, folder: Path) -> tuple[Kind, Record]:
    return read_record(_parsed(line.content), line.number, folder)


def _parsed(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_LINE:
        raise InputError(f"is longer than {MAX_LINE} bytes")
    if content.startswith(_MARK):
        raise InputError("begins with a byte order mark; only a file may (were files joined?)")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 (byte {error.start})") from None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON ({str(error)[:100]})") from None
    if not isinstance(value, dict):
        raise InputError(f"is a JSON {_JSON_NAMES.get(type(value), 'value')}; an object is needed")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


_JSON_NAMES: Final = {str: "string", list: "list", int: "number", float: "number", bool: "boolean", type(None): "null"}
