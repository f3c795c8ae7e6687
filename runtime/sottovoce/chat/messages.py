"""Messages as the OpenAI API has them, checked once and made plain and immutable for what comes after.

Knows roles, contents and calls; knows no template and no tokens. What is wrong is named by its index.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from sottovoce.chat.types import Message
from sottovoce.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_MESSAGES = 4096
MAX_CHARACTERS = 8_000_000  # of one conversation, arguments and reasoning included
MAX_PARTS = 1024
MAX_CALLS = 128  # of one message

# What older clients and other servers call a thinking section; templates read the first name.
_REASONING = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class CallMade:
    """A call that an earlier answer asked for. `arguments` are JSON values, not to be changed."""

    id: str
    name: str
    arguments: Mapping[str, Any]

    def for_template(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": json.loads(json.dumps(dict(self.arguments)))},
        }


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message. `content` is text, "" where there is none: templates add strings to it.

    `answers` is the id of the call that a tool's message answers, `name` who speaks (or the tool, where it is known).
    """

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[CallMade, ...] = ()
    answers: str | None = None
    name: str | None = None

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it: plain values, fresh, and no key that has nothing to say."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            message |= {"reasoning_content": self.reasoning, "thinking": self.reasoning}
        if self.tool_calls:
            message["tool_calls"] = [call.for_template() for call in self.tool_calls]
        if self.answers is not None:
            message["tool_call_id"] = self.answers
        if self.name is not None:
            message["name"] = self.name
        return message


def read_messages(messages: Sequence[Message]) -> tuple[ChatMessage, ...]:
    """`messages`, checked. "developer" becomes "system", parts of text are joined, arguments of calls are parsed.

    Raises InputError that names the message and the value.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise InputError(f"messages: {_shown(messages)} is not a list of messages")
    if not messages:
        raise InputError("messages: the list is empty; at least one message is needed")
    if len(messages) > MAX_MESSAGES:
        raise InputError(f"messages: {len(messages)} of them, the limit is {MAX_MESSAGES}")
    read: list[ChatMessage] = []
    called: dict[str, str] = {}  # id of a call -> name of the tool
    room = MAX_CHARACTERS
    for index, raw in enumerate(messages):
        message = _read(raw, f"messages[{index}]")
        room -= _characters(message)
        if room < 0:
            raise InputError(f"messages[{index}]: the messages exceed {MAX_CHARACTERS} characters together")
        called.update({call.id: call.name for call in message.tool_calls})
        read.append(_named(message, called, f"messages[{index}]") if message.role == "tool" else message)
    return tuple(read)


def _read(raw: Message, place: str) -> ChatMessage:
    if not isinstance(raw, Mapping):
        raise InputError(f'{place}: {_shown(raw)} is not a message; {{"role": "user", "content": "..."}} is one')
    role = raw.get("role")
    if role not in ROLES:
        said = "has no role" if role is None else f"role {_shown(role)} is unknown"
        raise InputError(f"{place}: {said}; one of {', '.join(ROLES)}")
    for refused, instead in (("function_call", "tool_calls"), ("audio", "text")):
        if raw.get(refused) is not None:
            raise InputError(f"{place}: {refused!r} is not supported; give {instead}")
    calls = _calls(raw.get("tool_calls"), role, place)
    return ChatMessage(
        role="system" if role == "developer" else role,
        content=_content(raw.get("content"), place, may_lack=bool(calls)),
        reasoning=_reasoning(raw, place) if role == "assistant" else None,
        tool_calls=calls,
        answers=_text(raw.get("tool_call_id"), f"{place}.tool_call_id") if role == "tool" else None,
        name=None if raw.get("name") is None else _text(raw["name"], f"{place}.name"),
    )


def _content(content: Any, place: str, *, may_lack: bool) -> str:
    place = f"{place}.content"
    if content is None and may_lack:
        return ""
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        if len(content) > MAX_PARTS:
            raise InputError(f"{place}: {len(content)} parts, the limit is {MAX_PARTS}")
        return "".join(_part(part, f"{place}[{index}]") for index, part in enumerate(content))
    return _text(content, place)


def _part(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" or kind == "refusal":
        return _text(part.get(kind), f"{place}.{kind}")
    if isinstance(kind, str):
        raise InputError(f"{place}: a part of type {_shown(kind)} is not supported; this model takes text only")
    raise InputError(f'{place}: {_shown(part)} is not {{"type": "text", "text": "..."}}')


def _calls(calls: Any, role: str, place: str) -> tuple[CallMade, ...]:
    place = f"{place}.tool_calls"
    if calls is None or calls == [] or calls == ():
        return ()
    if role != "assistant":
        raise InputError(f"{place}: only an assistant's message has calls, and this one's role is {role!r}")
    if isinstance(calls, str | bytes | Mapping) or not isinstance(calls, Sequence):
        raise InputError(f"{place}: {_shown(calls)} is not a list")
    if len(calls) > MAX_CALLS:
        raise InputError(f"{place}: {len(calls)} calls, the limit is {MAX_CALLS}")
    return tuple(_call(call, f"{place}[{index}]") for index, call in enumerate(calls))


def _call(call: Any, place: str) -> CallMade:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InputError(f'{place}: {_shown(call)} has no "function" with "name" and "arguments"')
    return CallMade(
        id=_text(call.get("id"), f"{place}.id"),
        name=_text(function.get("name"), f"{place}.function.name"),
        arguments=_arguments(function.get("arguments"), f"{place}.function.arguments"),
    )


def _arguments(arguments: Any, place: str) -> Mapping[str, Any]:
    """The object that `arguments` is or spells; "" and None are no arguments."""
    if arguments is None or arguments == "":
        return MappingProxyType({})
    try:
        spelt = arguments if isinstance(arguments, str) else json.dumps(arguments, allow_nan=False)
        if len(spelt) > MAX_CHARACTERS:
            raise InputError(f"{place}: {len(spelt)} characters, the limit is {MAX_CHARACTERS}")
        value = json.loads(spelt, parse_constant=_no_constant)
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: {_shown(arguments)} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{place}: {_shown(arguments)} is not a JSON object")
    return MappingProxyType(value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _reasoning(raw: Message, place: str) -> str | None:
    for key in _REASONING:
        if raw.get(key) is not None:
            return _text(raw[key], f"{place}.{key}")
    return None


def _named(message: ChatMessage, called: Mapping[str, str], place: str) -> ChatMessage:
    """A tool's message with the name of the tool whose call it answers."""
    assert message.answers is not None
    if message.answers not in called:
        known = ", ".join(repr(one) for one in list(called)[-4:]) or "none"
        raise InputError(
            f"{place}.tool_call_id: no earlier message has a call {_shown(message.answers)}; the last known: {known}"
        )
    return message if message.name is not None else replace(message, name=called[message.answers])


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{place}: {'is missing' if value is None else _shown(value) + ' is not text'}; a string is needed"
        )
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"{place}: character {error.start} is half of a surrogate pair (U+{ord(value[error.start]):04X}), "
                "which no text has"
            ) from error
    return str.__str__(value)  # of a subclass, the plain string


def _characters(message: ChatMessage) -> int:
    calls = sum(len(call.name) + len(json.dumps(dict(call.arguments))) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning or "") + len(message.name or "") + calls


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except Exception:
        shown = f"a {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:57] + "..."
