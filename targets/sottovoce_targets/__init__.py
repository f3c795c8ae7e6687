"""The machines we compile for: facts about each, one TOML file a target, and nothing decided.

Knows how to read those files strictly. What to do with a fact (which precision suits which instructions) is
the compiler's business.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
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
FORMATS = ("onnx", "gguf", "coreml", "litert")
SUFFIX = ".toml"


@dataclass(frozen=True, slots=True)
class Chat:
    """How language models run there: what loads them, in which format and precision, and the positions of context that
    its memory has room for beside the model. `gate` as that of a target, for language models.
    """

    engine: str = "llama.cpp"
    format: str = "gguf"
    precision: str = "int4"
    context: int = 4096
    gate: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """One machine, or the least of a kind of machines. Memory is the whole machine's; `threads` 0 means all
    cores.

    `instructions` are the names the Linux kernel gives to the processor features that can be relied on.
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
    instructions: tuple[str, ...]
    engine: str
    format: str
    precision: str
    threads: int
    chat: Chat = field(default_factory=Chat)
    gate: Mapping[str, float] = field(default_factory=dict)
    stream: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON values, in the order of the fields."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["chat"] = {one.name: getattr(self.chat, one.name) for one in fields(self.chat)}
        values["chat"]["gate"] = dict(self.chat.gate)
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            for name, value in values.items()
        }


def list_targets() -> list[str]:
    """The names of all targets, sorted."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))


def load_target(name: str) -> Target:
    """The target of that name; an unknown one is an `InputError` with the closest names."""
    names = list_targets()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise InputError(f"unknown target {name!r}; {hint}")
    return parse_target(name, files(__name__).joinpath(name + SUFFIX).read_text(encoding="utf-8"))


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
    if missing := sorted(known - {"chat", "gate", "stream", "notes"} - set(table)):
        raise InputError(f"target {name}: key {missing[0]!r} is missing")
    return Target(
        name=name,
        **{key: _text(name, table, key) for key in ("description", "cpu", "engine", "format")},
        arch=_one_of(name, table, "arch", ARCHITECTURES),
        os=_one_of(name, table, "os", SYSTEMS),
        precision=_one_of(name, table, "precision", PRECISIONS),
        cores=_count(name, table, "cores", least=1),
        memory_mb=_count(name, table, "memory_mb", least=1),
        threads=_count(name, table, "threads", least=0),
        instructions=_texts(name, table, "instructions"),
        chat=_chat(name, table.get("chat", {})),
        gate=_gate(name, table.get("gate", {}), GATE_LIMITS),
        stream=_stream(name, table.get("stream", {})),
        notes=_texts(name, {"notes": [], **table}, "notes"),
    )


def _chat(name: str, value: object) -> Chat:
    if not isinstance(value, dict):
        raise InputError(f"target {name}: chat is {value!r}; expected a table")
    known = {one.name for one in fields(Chat)}
    _refuse(name, "key of chat", sorted(set(value) - known), sorted(known))
    whole = {one.name: getattr(Chat(), one.name) for one in fields(Chat)} | value
    return Chat(
        engine=_text(name, whole, "engine"),
        format=_one_of(name, whole, "format", FORMATS),
        precision=_one_of(name, whole, "precision", PRECISIONS),
        context=_count(name, whole, "context", least=1),
        gate=_gate(name, whole["gate"], CHAT_GATE_LIMITS),
    )


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
