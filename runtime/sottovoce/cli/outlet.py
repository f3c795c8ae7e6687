"""Where transcripts go: to stdout as they are decoded, to a file each, or into one JSON object.

Knows formats and files. Knows nothing of what made the segments.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from sottovoce.cli.progress import Progress
from sottovoce.errors import InputError
from sottovoce.formats import render, transcript
from sottovoce.types import Segment, TranscriptionInfo

STDIN = "-"


class Outlet(Protocol):
    """Takes the recordings of one command line, one after the other."""

    def write(self, source: str, segments: Iterable[Segment], info: TranscriptionInfo) -> None:
        """One recording, its segments taken as they come."""
        ...

    def failed(self, source: str, error: Exception) -> None:
        """One recording that gave an error instead."""
        ...

    def finish(self) -> None:
        """Called once, after the last recording."""
        ...


def choose_outlet(sources: Sequence[str], format: str, *, words: bool, folder: Path | None, as_json: bool) -> Outlet:
    """The outlet that a command line asks for. Raises InputError where it asks for what cannot be."""
    if sources.count(STDIN) > 1:
        raise InputError("- (standard input) can be read once")
    files = None if folder is None else _checked_folder(ToFolder(folder, format, words), sources)
    if as_json:
        return ToJson(sources, files)
    if files:
        return files
    if len(sources) > 1 and format in ("srt", "vtt", "tsv"):
        raise InputError(f"{len(sources)} recordings as {format} need a folder to be written to: -o DIR")
    return ToStdout(format, words, titled=len(sources) > 1 and format == "txt")


@dataclass
class ToStdout:
    """Text on stdout, flushed segment by segment; `titled` puts each recording under its name."""

    format: str
    words: bool
    titled: bool
    _written: int = 0

    def write(self, source: str, segments: Iterable[Segment], info: TranscriptionInfo) -> None:
        """Prints the segments as they come."""
        if self.titled:
            blank = "\n" if self._written else ""
            print(f"{blank}==> {source} <==", flush=True)
        self._written += 1
        _stream(self.format, segments, info, self.words, sys.stdout, source)

    def failed(self, source: str, error: Exception) -> None:
        """Prints the error on stderr."""
        _print_error(source, error)

    def finish(self) -> None:
        """Nothing is left to do."""


@dataclass
class ToFolder:
    """A file for each recording, moved into place when it is whole."""

    folder: Path
    format: str
    words: bool

    def path(self, source: str) -> Path:
        """The file that a recording's text goes to."""
        return self.folder / f"{'stdin' if source == STDIN else Path(source).stem}.{self.format}"

    def write(self, source: str, segments: Iterable[Segment], info: TranscriptionInfo) -> None:
        """Writes the file, then says on stderr that it is there."""
        with _moved_into_place(self.path(source)) as file:
            _stream(self.format, segments, info, self.words, file, source)
        print(f"wrote {self.path(source)}", file=sys.stderr)

    def failed(self, source: str, error: Exception) -> None:
        """Prints the error on stderr."""
        _print_error(source, error)

    def finish(self) -> None:
        """Nothing is left to do."""


@dataclass
class ToJson:
    """`{"ok": true, "files": [{"file": ..., "text": ..., "segments": ...}]}` on stdout, in the order given.

    A recording that failed has `error` in place of the text, and makes `ok` false.
    """

    sources: Sequence[str]
    files: ToFolder | None
    _results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, source: str, segments: Iterable[Segment], info: TranscriptionInfo) -> None:
        """Keeps the transcript; writes the file too if there is a folder."""
        kept = list(_followed(segments, Progress(info.duration, Path(source).name)))
        self._results[source] = {"file": source} | transcript(kept, info)
        if self.files:
            self.files.write(source, kept, info)
            self._results[source]["output"] = str(self.files.path(source))

    def failed(self, source: str, error: Exception) -> None:
        """Keeps the error and prints it on stderr."""
        _print_error(source, error)
        self._results[source] = {"file": source, "error": str(error)}

    def finish(self) -> None:
        """Prints the object."""
        files = [self._results[source] for source in self.sources]
        ok = not any("error" in file for file in files)
        print(json.dumps({"ok": ok, "files": files}, ensure_ascii=False, allow_nan=False))


def _checked_folder(files: ToFolder, sources: Sequence[str]) -> ToFolder:
    """Makes the folder; two recordings that would overwrite one another are refused."""
    taken: dict[Path, str] = {}
    for source in sources:
        path = files.path(source)
        if path in taken:
            raise InputError(f"{taken[path]} and {source} would both be written to {path}: use two folders")
        taken[path] = source
    if files.folder.exists() and not files.folder.is_dir():
        raise InputError(f"-o {files.folder}: a file, and a folder is needed")
    files.folder.mkdir(parents=True, exist_ok=True)
    return files


def _stream(
    format: str, segments: Iterable[Segment], info: TranscriptionInfo, words: bool, out: TextIO, source: str
) -> None:
    """Writes each piece as it comes; the bar leaves the screen while text is printed on it."""
    progress = Progress(info.duration, Path(source).name)
    progress.update(0.0)
    try:
        for piece in render(format, _followed(segments, progress), info, words=words):
            if out.isatty():
                progress.clear()
            out.write(piece)
            out.flush()
    finally:
        progress.clear()


def _followed(segments: Iterable[Segment], progress: Progress) -> Iterator[Segment]:
    """The same segments, with the bar moving along."""
    for segment in segments:
        yield segment
        progress.update(segment.end)
    progress.clear()


@contextmanager
def _moved_into_place(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name when it is complete, and not at all if something goes wrong."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk does not say where
    finally:
        part.unlink(missing_ok=True)


def _print_error(source: str, error: Exception) -> None:
    """An error of the engine does not know which recording it was."""
    known = source == STDIN or source in str(error)
    print(f"sottovoce: error: {error if known else f'{source}: {error}'}", file=sys.stderr)
