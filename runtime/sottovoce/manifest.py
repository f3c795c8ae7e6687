"""What a bundle says of itself: `manifest.json`, format 1, read strictly and with bounds.

Knows the manifest's keys and which versions fit together. Knows nothing of where the bytes lie, of engines,
or of what `audio`, `model`, `generation` and `stream` mean: those belong to what reads them."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sottovoce.archive import MANIFEST, MANIFEST_DIGEST, check_names
from sottovoce.errors import BundleError

FORMAT = 1
MAX_MANIFEST_BYTES = 4 << 20
MAX_DEPTH = 32  # nesting of JSON values; ours have five
MAX_FILE_BYTES = 1 << 44  # 16 TiB, beyond any model and well within what a file offset can hold

_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What one file must be: its length in bytes and its SHA-256 in lower-case hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights came from; `sha256` maps each source file to its digest."""

    spec: str
    revision: str | None
    licence: str | None
    sha256: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """The device the bundle was made for; `facts` are the target's own, `name` among them."""

    name: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs the bundle: versions from `min_version` up to, but not including, `max_version`."""

    name: str
    min_version: str
    max_version: str | None
    opset: int | None
    cpu_features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that this runtime can read; `raw` is all of it, unknown keys included."""

    format: int
    requires_runtime: str
    task: str
    family: str
    name: str
    precision: str
    source: Source
    target: Target
    engine: Engine
    audio: Mapping[str, Any]
    model: Mapping[str, Any]
    generation: Mapping[str, Any]
    stream: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    raw: Mapping[str, Any]


_OWN_NAMES = {"requires_runtime", "raw"}  # of the class, where the file has others
# `components` credits what a bundle carries beside the model; nothing is read from it here.
_KNOWN = {"requires", "required", "components"} | {field.name for field in fields(Manifest)} - _OWN_NAMES


def parse_manifest(data: bytes, runtime_version: str) -> Manifest:
    """The manifest in `data`, for a runtime of `runtime_version`.

    Warns of an unknown optional key. Raises BundleError for anything damaged, absurd, or made for a newer
    runtime; the latter names the version to install."""
    raw = load_json(data, MANIFEST, MAX_MANIFEST_BYTES)
    whole = _Fields(raw, "")
    found = whole.number("format")
    needed = whole.table("requires", {}).version("runtime")
    _check_format(found, needed, runtime_version)
    _check_keys(raw, needed)
    source, target, engine = whole.table("source"), whole.table("target"), whole.table("engine")
    return Manifest(
        format=found,
        requires_runtime=needed,
        task=whole.text("task"),
        family=whole.text("family"),
        name=whole.text("name"),
        precision=whole.text("precision"),
        source=Source(
            source.text("spec"),
            source.optional_text("revision"),
            source.optional_text("licence"),
            source.table("sha256", {}).texts(),
        ),
        target=Target(target.text("name"), target.values),
        engine=_parse_engine(engine),
        audio=whole.table("audio", {}).values,
        model=whole.table("model", {}).values,
        generation=whole.table("generation", {}).values,
        stream=whole.table("stream", {}).values,
        files=_parse_files(whole.table("files")),
        raw=raw,
    )


def load_json(data: bytes, name: str, limit: int) -> dict[str, Any]:
    """The JSON object in `data`, called `name` in errors: UTF-8, no key twice, no NaN, bounded size and
    depth.

    Raises BundleError otherwise.
    """
    if len(data) > limit:
        raise BundleError(f"{name} has {len(data)} bytes, more than the {limit} allowed")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not valid JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise BundleError(f"{name} holds {_kind(value)}, expected an object")
    _check_depth(value, name)
    return value


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version without trailing zeros, so that 1.23, 1.23.0 and 1.23.0+cpu are equal."""
    match = _RELEASE.match(version)
    numbers = [int(part[:9]) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_runtime_version(needed: str, runtime_version: str) -> None:
    """Raises BundleError, naming the version to install, when the runtime is older than the bundle needs."""
    if release(runtime_version) < release(needed):
        raise BundleError(
            f"needs sottovoce {needed} or newer, installed is {runtime_version}: pip install 'sottovoce>={needed}'"
        )


def check_engine_version(engine: Engine, installed: str, package: str | None = None) -> None:
    """Raises BundleError when `installed` lies outside the range the bundle was checked with, naming both, and the
    `package` to install where it has another name than the engine."""
    low, high = engine.min_version, engine.max_version
    if release(installed) >= release(low) and (high is None or release(installed) < release(high)):
        return
    wanted, name = f">={low}" + (f",<{high}" if high else ""), package or engine.name
    raise BundleError(f"needs {engine.name}{wanted}, installed is {installed}: pip install '{name}{wanted}'")


def _check_format(found: int, needed: str, runtime_version: str) -> None:
    if found > FORMAT:
        raise BundleError(
            f"bundle format {found}, this runtime (sottovoce {runtime_version}) reads format {FORMAT}: "
            f"pip install 'sottovoce>={needed}'"
        )
    if found < FORMAT:
        raise BundleError(f"bundle format {found} does not exist, expected {FORMAT}")
    check_runtime_version(needed, runtime_version)


def _check_keys(raw: Mapping[str, Any], needed: str) -> None:
    required = _strings(raw.get("required", []), "required")
    for key in required:
        if key not in _KNOWN:
            raise BundleError(f"needs a runtime that knows {printable(key)!r}: pip install -U 'sottovoce>={needed}'")
    for key in raw.keys() - _KNOWN:
        warnings.warn(f"{MANIFEST}: unknown key {printable(key)!r} ignored", stacklevel=4)


def _parse_engine(engine: "_Fields") -> Engine:
    name = engine.text("name")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,50}", name):
        raise engine.wrong("name", name, "a package name")
    high = None if engine.values.get("max_version") is None else engine.version("max_version")
    opset = None if engine.values.get("opset") is None else engine.number("opset")
    features = _strings(engine.values.get("cpu_features", []), "engine.cpu_features")
    return Engine(name, engine.version("min_version"), high, opset, features)


def _parse_files(files: "_Fields") -> dict[str, FileEntry]:
    if MANIFEST in files.values or MANIFEST_DIGEST in files.values:
        raise BundleError(f"{MANIFEST} lists itself or {MANIFEST_DIGEST} among its files")
    entries = {}
    for name in check_names([MANIFEST, MANIFEST_DIGEST, *files.values])[1:]:
        if name == MANIFEST_DIGEST:
            continue
        entry = files.table(name)
        size, digest = entry.number("bytes"), entry.text("sha256")
        if size > MAX_FILE_BYTES:
            raise entry.wrong("bytes", size, f"at most {MAX_FILE_BYTES}")
        if not _SHA256.fullmatch(digest):
            raise entry.wrong("sha256", digest, "64 hexadecimal digits")
        entries[name] = FileEntry(size, digest)
    return entries


@dataclass(frozen=True, slots=True)
class _Fields:
    """A JSON object under inspection; `place` is its dotted name, for errors."""

    values: Mapping[str, Any]
    place: str

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, value, "text")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self.values.get(key) is None else self.text(key)

    def number(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(key, value, "a whole number, zero or more")
        return value

    def version(self, key: str) -> str:
        value = self.text(key)
        if not _VERSION.fullmatch(value):
            raise self.wrong(key, value, "a version such as 1.23")
        return value

    def table(self, key: str, default: Mapping[str, Any] | None = None) -> "_Fields":
        value = self.values.get(key, default) if default is not None else self._get(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "an object")
        return _Fields(value, self.place + key + ".")

    def texts(self) -> dict[str, str]:
        return {key: self.text(key) for key in self.values}

    def wrong(self, key: str, value: object, expected: str) -> BundleError:
        shown = _kind(value) if isinstance(value, dict | list) else printable(repr(value))
        return BundleError(f"{MANIFEST}: {printable(self.place + key)} is {shown}, expected {expected}")

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise BundleError(f"{MANIFEST}: {printable(self.place + key)} is missing")
        return self.values[key]


def printable(text: str, limit: int = 120) -> str:
    """`text` safe to show on a terminal: control and other invisible characters replaced, cut at `limit`."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _strings(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise BundleError(f"{MANIFEST}: {place} is {printable(repr(value))}, expected a list of texts")
    return tuple(value)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _check_depth(value: object, name: str, depth: int = 0) -> None:
    """Also refuses lone surrogates, which JSON can spell and no output can hold, and numbers like 1e999."""
    if depth > MAX_DEPTH:
        raise BundleError(f"{name} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_depth(key, name, depth)
            _check_depth(item, name, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_depth(item, name, depth + 1)
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise BundleError(f"{name} holds a number too large to represent")
    elif isinstance(value, str) and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise BundleError(f"{name} holds text that is not valid Unicode")


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(type(value), "a number")
