"""The machines we compile for: facts about each, one TOML file a target, and nothing decided.

Knows how to read those files, and a user's own, strictly. What to do with a fact (which precision suits which
instructions, what runs a format) is the compiler's business.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from sottovoce.errors import InputError
from sottovoce.streaming.options import stream_settings

PRECISIONS = ("fp32", "fp16", "int8", "int4")
ARCHITECTURES = ("x86-64", "aarch64", "wasm32")
SYSTEMS = ("linux", "android", "ios", "macos", "browser")
GATE_LIMITS = (
    "max_wer_increase",
    "max_cer_increase",
    "max_language_error_increase",
    "max_invented_words_per_minute_increase",
    "max_stream_wer_increase",
    "max_stream_cer_increase",
)
CHAT_GATE_LIMITS = ("max_kl", "max_perplexity_increase", "min_top1")
# What runs each format on a device, by the name that a manifest has.
ENGINES: Mapping[str, str] = {"onnx": "onnxruntime", "gguf": "llama.cpp", "coreml": "coreml", "litert": "litert"}
FORMATS = tuple(ENGINES)
PARTS = ("encoder", "decoder", "head")  # of a speech model, which may differ in precision
SUFFIX = ".toml"


@dataclass(frozen=True, slots=True)
class Chat:
    """How language models run there: the formats that something there runs, the one to prefer first; the precision;
    and the positions of context that its memory has room for beside the model. `gate` as that of a target, for language
    models.
    """

    formats: tuple[str, ...] = ("gguf", "onnx")
    precision: str = "int4"
    context: int = 4096
    gate: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """One machine, or the least of a kind of machines. `memory_mb` (2^20 bytes, as makers count) is the whole
    machine's, `usable_mb` what of it programs can have; `threads` 0 means all cores.

    `formats` are those of speech that something there runs, the one to prefer first. `precision` is one for the whole
    speech model, or says one for each of `PARTS`: "encoder int8, decoder int4, head int8". `sources` are documents of
    the machine's maker that state these facts. `instructions` are the names the Linux kernel gives to the processor
    features that can be relied on.

    `gate` holds limits by name; a limit that is absent has the compiler's default. `stream` holds the settings of a
    stream that were measured there, by the names of the runtime's `StreamOptions`; one that is absent has its default.
    """

    name: str
    description: str
    arch: str
    os: str
    cpu: str
    cores: int
    memory_mb: int
    usable_mb: int
    instructions: tuple[str, ...]
    formats: tuple[str, ...]
    precision: str
    threads: int
    chat: Chat = field(default_factory=Chat)
    gate: Mapping[str, float] = field(default_factory=dict)
    stream: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def with_memory(self, memory_mb: int) -> "Target":
        """The same machine with so much memory, of which the system takes as much as before. Raises InputError where
        nothing would be left."""
        taken = self.memory_mb - self.usable_mb
        if memory_mb <= taken:
            raise InputError(f"memory of {memory_mb} MB: on {self.name} the system takes {taken} MB; give more")
        return replace(self, memory_mb=memory_mb, usable_mb=memory_mb - taken)

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON values, in the order of the fields."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["chat"] = {one.name: _jsonable(getattr(self.chat, one.name)) for one in fields(self.chat)}
        return {name: _jsonable(value) for name, value in values.items()}


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def list_targets() -> list[str]:
    """The names of all targets, sorted."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))


def load_target(name: str) -> Target:
    """The target of that name, or of a user's own file, whose name ends in `.toml`; an unknown one is an `InputError`
    with the closest names.
    """
    if name.endswith(SUFFIX):
        return _own_target(Path(name))
    names = list_targets()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise InputError(f"unknown target {name!r}; {hint}")
    return parse_target(name, files(__name__).joinpath(name + SUFFIX).read_text(encoding="utf-8"))


def _own_target(path: Path) -> Target:
    """Of a user's own file; the file's name, less its ending, names the target."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"target file {path}: {reason}; `sottovoce targets` lists those that need no file") from None
    return parse_target(path.name.removesuffix(SUFFIX), text)


def parse_target(name: str, text: str) -> Target:
    """The target in a TOML text; whatever is unknown, missing or of the wrong kind is an `InputError` that
    names it.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"target {name}: not valid TOML ({error})") from None
    known = {one.name for one in fields(Target)} - {"name"}
    _refuse(name, "key", sorted(set(table) - known), sorted(known))
    optional = {"chat", "gate", "stream", "notes", "sources"}
    if missing := sorted(known - optional - set(table)):
        raise InputError(f"target {name}: key {missing[0]!r} is missing")
    memory = _count(name, table, "memory_mb", least=1)
    usable = _count(name, table, "usable_mb", least=1)
    if usable > memory:
        raise InputError(f"target {name}: usable_mb is {usable}, more than the memory_mb of {memory}")
    return Target(
        name=name,
        **{key: _text(name, table, key) for key in ("description", "cpu")},
        arch=_one_of(name, table, "arch", ARCHITECTURES),
        os=_one_of(name, table, "os", SYSTEMS),
        formats=_formats(name, table),
        precision=_precision(name, table["precision"]),
        cores=_count(name, table, "cores", least=1),
        memory_mb=memory,
        usable_mb=usable,
        threads=_count(name, table, "threads", least=0),
        instructions=_texts(name, table, "instructions"),
        chat=_chat(name, table.get("chat", {})),
        gate=_gate(name, table.get("gate", {}), GATE_LIMITS),
        stream=_stream(name, table.get("stream", {})),
        notes=_texts(name, {"notes": [], **table}, "notes"),
        sources=_texts(name, {"sources": [], **table}, "sources"),
    )


def _chat(name: str, value: object) -> Chat:
    if not isinstance(value, dict):
        raise InputError(f"target {name}: chat is {value!r}; expected a table")
    known = {one.name for one in fields(Chat)}
    _refuse(name, "key of chat", sorted(set(value) - known), sorted(known))
    whole = {one.name: _jsonable(getattr(Chat(), one.name)) for one in fields(Chat)} | value
    return Chat(
        formats=_formats(name, whole),
        precision=_one_of(name, whole, "precision", PRECISIONS),
        context=_count(name, whole, "context", least=1),
        gate=_gate(name, whole["gate"], CHAT_GATE_LIMITS),
    )


def _formats(name: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    found = _texts(name, table, "formats")
    if not found or len(set(found)) < len(found) or not set(found) <= set(FORMATS):
        raise InputError(f"target {name}: formats is {list(found)!r}; expected some of {', '.join(FORMATS)}, each once")
    return found


def _precision(name: str, value: object) -> str:
    """One precision, or a table of one for each part, in the words of `Target.precision`."""
    if not isinstance(value, dict):
        return _one_of(name, {"precision": value}, "precision", PRECISIONS)
    _refuse(name, "part in precision", sorted(set(value) - set(PARTS)), PARTS)
    if missing := [part for part in PARTS if part not in value]:
        raise InputError(f"target {name}: precision of the {missing[0]} is missing")
    return ", ".join(f"{part} {_one_of(name, value, part, PRECISIONS)}" for part in PARTS)


def _gate(name: str, value: object, limits: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(value, dict):
        raise InputError(f"target {name}: gate is {value!r}; expected a table of limits")
    _refuse(name, "gate limit", sorted(set(value) - set(limits)), limits)
    for limit, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise InputError(f"target {name}: gate limit {limit} is {number!r}; expected a number")
    return {limit: float(number) for limit, number in value.items()}


def _stream(name: str, value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise InputError(f"target {name}: stream is {value!r}; expected a table of settings")
    try:
        return stream_settings(value)
    except InputError as error:
        raise InputError(f"target {name}: stream: {error}") from None


def _refuse(name: str, what: str, unknown: list[str], known: "list[str] | tuple[str, ...]") -> None:
    if unknown:
        raise InputError(f"target {name}: unknown {what} {unknown[0]!r}; known are {', '.join(known)}")


def _text(name: str, table: Mapping[str, Any], key: str) -> str:
    if not isinstance(value := table[key], str) or not value:
        raise InputError(f"target {name}: {key} is {value!r}; expected a text")
    return value


def _texts(name: str, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table[key]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"target {name}: {key} is {value!r}; expected a list of texts")
    return tuple(value)


def _one_of(name: str, table: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    if (value := _text(name, table, key)) not in allowed:
        raise InputError(f"target {name}: {key} is {value!r}; expected one of {', '.join(allowed)}")
    return value


def _count(name: str, table: Mapping[str, Any], key: str, *, least: int) -> int:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"target {name}: {key} is {value!r}; expected a whole number from {least}")
    return value
