"""What a line of data may be: one record a kind, told by the keys of the object, checked field by field.

Knows kinds and their fields. Messages and tools are checked by the runtime's own code, so that what is trained on is
what can be asked. Knows no file, no template and no tokens.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sottovoce.chat.messages import ChatMessage, read_messages
from sottovoce.chat.tools import Tool, read_tools
from sottovoce.errors import InputError

Kind = Literal["chat", "instruction", "prompt", "text", "speech"]
Fields = Mapping[str, Any]

MAX_TEXT = 8_000_000  # characters of one field
MAX_SPOKEN = 5_000  # characters of what is said in one recording: Whisper writes some 500 in its 30 s
_SPEAKERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt"), "assistant"),
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class ChatLine:
    """A conversation. `answers` are the indices of the assistant's messages that are learned, in order."""

    line: int
    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...]
    answers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InstructionLine:
    """A task and its answer; `input` is what the task is about, "" where it says so itself."""

    line: int
    instruction: str
    input: str
    output: str
    system: str | None = None


@dataclass(frozen=True, slots=True)
class PromptLine:
    """Text, and the text that is to follow it."""

    line: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class TextLine:
    """Text as it is."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class SpeechLine:
    """A recording and what is said in it between `start` and `end`, in seconds, or in all of it. `name` is the file as
    the data writes it."""

    line: int
    audio: Path
    name: str
    text: str
    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    start: float | None = None
    end: float | None = None


Record = ChatLine | InstructionLine | PromptLine | TextLine | SpeechLine


@dataclass(frozen=True, slots=True)
class Form:
    """How a kind is written: the first key that a line has of all `keys` decides. `example` is for messages."""

    kind: Kind
    key: str
    read: Callable[[Fields, int, Path], Record]
    example: str


def read_record(fields: Fields, line: int, folder: Path) -> tuple[Kind, Record]:
    """The record that `fields`, line `line` of a file in `folder`, is. Raises InputError that names the field."""
    for form in FORMS:
        if form.key in fields:
            return form.kind, form.read(fields, line, folder)
    keys = ", ".join(repr(key)[:40] for key in list(fields)[:6]) or "none"
    raise InputError(
        f"its keys ({keys}) are of no kind of data; there are "
        + "; ".join(f"{form.kind}: {form.example}" for form in FORMS)
    )


def _messages(fields: Fields, line: int, folder: Path) -> ChatLine:
    raw = fields["messages"]
    messages, tools = read_messages(raw), read_tools(fields.get("tools"))
    return ChatLine(line, messages, tools, _answers(messages, raw))


def _conversations(fields: Fields, line: int, folder: Path) -> ChatLine:
    turns = fields["conversations"]
    if not isinstance(turns, list) or not turns:
        raise InputError(f"conversations: {_shown(turns)} is not a list of turns")
    raw = [_turn(turn, f"conversations[{index}]") for index, turn in enumerate(turns)]
    if (system := _text(fields, "system", needed=False)) and raw[0]["role"] != "system":
        raw.insert(0, {"role": "system", "content": system})
    messages = read_messages(raw)
    return ChatLine(line, messages, (), _answers(messages, raw))


def _turn(turn: Any, place: str) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise InputError(f'{place}: {_shown(turn)} is not {{"from": "human", "value": "..."}}')
    speaker = turn.get("from")
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        raise InputError(f"{place}.from: {_shown(speaker)} is unknown; one of {', '.join(_SPEAKERS)}")
    return {"role": _SPEAKERS[speaker], "content": turn.get("value")}


def _answers(messages: Sequence[ChatMessage], raw: Sequence[Fields]) -> tuple[int, ...]:
    """The assistant's messages that are learned: all but those with "weight": 0."""
    found, spoken = [], False
    for index, (message, given) in enumerate(zip(messages, raw, strict=True)):
        weight = given.get("weight")
        if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
            raise InputError(f"messages[{index}].weight: {_shown(weight)}; 1 learns the answer, 0 does not")
        if message.role != "assistant":
            continue
        spoken = True
        if weight == 0:
            continue
        if not message.content.strip() and not message.tool_calls:
            raise InputError(f"messages[{index}]: the assistant's answer is empty")
        found.append(index)
    if not found:
        raise InputError(
            "every answer has weight 0, so that nothing is learned"
            if spoken
            else "no message is the assistant's, so that there is no answer to learn"
        )
    return tuple(found)


def _instruction(fields: Fields, line: int, folder: Path) -> InstructionLine:
    return InstructionLine(
        line,
        _text(fields, "instruction"),
        _text(fields, "input", needed=False),
        _text(fields, "output"),
        _text(fields, "system", needed=False) or None,
    )


def _prompt(fields: Fields, line: int, folder: Path) -> PromptLine:
    return PromptLine(line, _text(fields, "prompt"), _text(fields, "completion"))


def _plain(fields: Fields, line: int, folder: Path) -> TextLine:
    return TextLine(line, _text(fields, "text"))


def _speech(key: str) -> Callable[[Fields, int, Path], SpeechLine]:
    def read(fields: Fields, line: int, folder: Path) -> SpeechLine:
        name, text = _text(fields, key), _text(fields, "text")
        if len(text) > MAX_SPOKEN:
            raise InputError(f"text: {len(text)} characters for one recording; at most {MAX_SPOKEN} are read")
        audio = folder / name
        if not _is_file(audio):
            raise InputError(f"{key}: {_shown(name)} is not there; paths are relative to the data's folder")
        task = fields.get("task") or "transcribe"
        if task not in ("transcribe", "translate"):
            raise InputError(f"task: {_shown(task)}; transcribe and translate are known")
        start, end = _seconds(fields, "start"), _seconds(fields, "end")
        if end is not None and end <= (start or 0.0):
            raise InputError(f"end: {end} s is not after start, {start or 0.0} s")
        language = _text(fields, "language", needed=False).strip().lower() or None
        goal: Literal["transcribe", "translate"] = "translate" if task == "translate" else "transcribe"
        return SpeechLine(line, audio, name, text, language, goal, start, end)

    return read


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return False


def _text(fields: Fields, key: str, *, needed: bool = True) -> str:
    """The text of a field; "" where it is absent or null and not `needed`."""
    value = fields.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{key}: {'is missing' if value is None else f'{_shown(value)} is not text'}")
    if needed and not value.strip():
        raise InputError(f"{key}: is empty")
    if len(value) > MAX_TEXT:
        raise InputError(f"{key}: {len(value)} characters; at most {MAX_TEXT} are read")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{key}: character {error.start} is half of a surrogate pair, which no text has") from None
    return value


def _seconds(fields: Fields, key: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{key}: {_shown(value)}; seconds from the recording's start are expected")
    return float(value)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


# In this order: published data often has a rendered text beside what it was rendered from.
FORMS: Final = (
    Form("chat", "messages", _messages, '{"messages": [{"role": "user", "content": "..."}, ...]}'),
    Form("chat", "conversations", _conversations, '{"conversations": [{"from": "human", "value": "..."}, ...]}'),
    Form("instruction", "instruction", _instruction, '{"instruction": "...", "input": "...", "output": "..."}'),
    Form("prompt", "completion", _prompt, '{"prompt": "...", "completion": "..."}'),
    Form("prompt", "prompt", _prompt, '{"prompt": "...", "completion": "..."}'),
    Form("speech", "audio", _speech("audio"), '{"audio": "talk.wav", "text": "..."}'),
    Form("speech", "file", _speech("file"), '{"file": "talk.wav", "text": "..."}'),
    Form("text", "text", _plain, '{"text": "..."}'),
)
