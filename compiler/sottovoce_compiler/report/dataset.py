"""Clips to measure on, read from a user's manifest: one JSON object a line.

Knows the manifest's fields and their faults. Does not decode audio, and does not know the built-in set
(builtin.py).
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sottovoce.errors import InputError
from sottovoce_compiler.sources.files import sha256_of

NON_SPEECH_KINDS = frozenset({"noise", "music", "silence"})
_EXAMPLE = '{"file": "talk.wav", "text": "what is said", "language": "en", "seconds": 3.2}'


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording and what is said in it; `language` is a code such as "en" or None, `seconds` its length.

    `name` is the file as the manifest writes it: reports name clips by it, and never by a path of this
    machine.
    """

    name: str
    file: Path
    text: str
    language: str | None
    seconds: float
    kind: str = "speech"

    @property
    def is_speech(self) -> bool:
        """Whether anything is said; where nothing is, every word of a transcript is invented."""
        return bool(self.text.strip()) and self.kind not in NON_SPEECH_KINDS


@dataclass(frozen=True)
class Dataset:
    """Clips under a name that reports carry."""

    name: str
    clips: tuple[Clip, ...]

    @property
    def seconds(self) -> float:
        """Length of all clips together."""
        return math.fsum(clip.seconds for clip in self.clips)

    @cached_property
    def sha256(self) -> str:
        """A digest of what is measured: each clip's name, truth and bytes."""
        digest = hashlib.sha256()
        for clip in self.clips:
            truth = [clip.name, clip.text, clip.language, clip.kind, sha256_of(clip.file)]
            digest.update(json.dumps(truth, ensure_ascii=True).encode())
        return digest.hexdigest()


def read_manifest(path: str | Path) -> Dataset:
    """The dataset of a manifest with the fields file, text, language, seconds and kind, others ignored.

    `file` is relative to the manifest. `text` may be empty or null, and `kind` one of noise, music and
    silence, where nothing is said; `language` may be null where it is unknown; `seconds` is measured where it
    is missing. Raises `InputError` with the line number and the field.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"no manifest at {path}; --data takes a file of JSON lines") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the manifest {path}: {error}") from None
    clips = tuple(_read_lines(path, lines))
    if not clips:
        raise InputError(f"the manifest {path} has no clips; each line is an object such as {_EXAMPLE}")
    return Dataset(path.name, clips)


def _read_lines(path: Path, lines: list[str]) -> Iterator[Clip]:
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        clip = _read_clip(where, path.parent, _read_object(where, line))
        if clip.name in first_line:
            raise InputError(f"{where}: file {clip.name!r} stands on line {first_line[clip.name]} already")
        first_line[clip.name] = number
        yield clip


def _read_object(where: str, line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); expected an object such as {_EXAMPLE}") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: a JSON {type(value).__name__}; expected an object such as {_EXAMPLE}")
    return value


def _read_clip(where: str, folder: Path, fields: Mapping[str, Any]) -> Clip:
    name = _string(where, fields, "file")
    if not name:
        raise InputError(f"{where}: field file is missing; it names a recording relative to the manifest")
    file = folder / name
    if not file.is_file():
        raise InputError(f"{where}: file {name!r} is not there; paths are relative to the manifest's folder")
    text, kind = _string(where, fields, "text"), _string(where, fields, "kind") or "speech"
    if text is None and "text" not in fields and kind not in NON_SPEECH_KINDS:
        raise InputError(f"{where}: field text is missing; write an empty one for a clip in which nothing is said")
    if text and text.strip() and kind in NON_SPEECH_KINDS:
        raise InputError(f"{where}: kind {kind!r} means that nothing is said, yet text is {text!r}; change one of them")
    language = _string(where, fields, "language")
    seconds = _seconds(where, fields) if fields.get("seconds") is not None else _measure(where, file)
    return Clip(name, file, text or "", language.lower() if language else None, seconds, kind)


def _string(where: str, fields: Mapping[str, Any], field: str) -> str | None:
    value = fields.get(field)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: field {field} is {value!r}; expected a string")
    return value


def _seconds(where: str, fields: Mapping[str, Any]) -> float:
    value = fields["seconds"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise InputError(f"{where}: field seconds is {value!r}; expected the clip's length, above zero")
    return float(value)


def _measure(where: str, file: Path) -> float:
    import soundfile

    try:
        return float(soundfile.info(file).duration)
    except soundfile.SoundFileError as error:
        raise InputError(f"{where}: cannot read {file.name} to measure its length ({error}); give seconds") from None
