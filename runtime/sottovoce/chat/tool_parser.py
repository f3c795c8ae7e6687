"""Calls of tools read out of a model's text while it streams.

Knows a format's marks and JSON's brackets. What is not a call of a known tool comes out as the text it was.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any, Literal

from sottovoce.chat.tool_formats import ToolFormat
from sottovoce.chat.types import ToolCall


def call_id(number: int) -> str:
    """The id of the call with this number in its conversation: nine letters and digits, as some templates demand."""
    return f"call{number:05d}"


class ToolCallParser:
    """Text in; text that is to be shown and whole calls out. A call is given as soon as its JSON is whole."""

    def __init__(self, form: ToolFormat, names: Collection[str], first: int = 0) -> None:
        """`names` are the tools' names; `first` is the number of calls that the conversation had before."""
        self._form = form
        self._names = frozenset(names)
        self._next = first
        self._state: Literal["start", "text", "call", "after"] = "start"
        self._held = ""
        self._opening = ""  # the mark before what is held, while a call is read
        self._scan = _Scan()

    def push(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """(text to show, calls) that `text` makes final."""
        self._held += text
        shown: list[str] = []
        calls: list[ToolCall] = []
        while self._step(shown, calls):
            pass
        return "".join(shown), tuple(calls)

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """(text to show, calls) that was held back: half a call is text."""
        held, self._held = self._held, ""
        if self._state == "call":
            return self._opening + held, ()
        return ("" if self._state == "after" and self._skippable(held) else held), ()

    def _step(self, shown: list[str], calls: list[ToolCall]) -> bool:
        """One change of state; whether there may be another."""
        if self._state == "call":
            return self._read(shown, calls)
        if self._state == "after":
            return self._go_on()
        return self._look(shown)

    def _look(self, shown: list[str]) -> bool:
        """Text until a call begins."""
        opening = self._form.opening
        if not opening:
            return self._look_for_brace(shown)
        at = self._held.find(opening)
        if at >= 0:
            shown.append(self._held[:at].rstrip())
            self._begin(opening, self._held[at + len(opening) :])
            return True
        cut = len(self._held) - _begun(self._held, opening)
        cut = len(self._held[:cut].rstrip())
        shown.append(self._held[:cut])
        self._held = self._held[cut:]
        return False

    def _look_for_brace(self, shown: list[str]) -> bool:
        """Where calls have no mark, only what begins the answer can be one."""
        begin = self._held.lstrip()
        if self._state == "start" and begin.startswith("{"):
            self._begin(self._held[: len(self._held) - len(begin)], begin)
            return True
        if self._state == "start" and not begin:
            return False
        shown.append(self._held)
        self._state, self._held = "text", ""
        return False

    def _begin(self, opening: str, rest: str) -> None:
        self._state, self._opening, self._held, self._scan = "call", opening, rest, _Scan()

    def _read(self, shown: list[str], calls: list[ToolCall]) -> bool:
        end = self._scan.end(self._held)
        if end is None:
            return False
        made = self._calls(self._held[:end]) if end else None
        if made is None:
            shown.append(self._opening + self._held[:end])
            self._state = "text"
        else:
            calls += made
            self._state = "after"
        self._held = self._held[end:]
        return True

    def _go_on(self) -> bool:
        """After a call: its closing mark, another call, or text."""
        rest = self._held.lstrip()
        closing, opening = self._form.closing, self._form.opening
        if closing and rest.startswith(closing):
            self._held = rest[len(closing) :]
            return True
        if opening and rest.startswith(opening):
            self._begin(opening, rest[len(opening) :])
            return True
        if not opening and rest.lstrip("; \n").startswith("{"):
            self._begin(self._held[: -len(rest.lstrip("; \n"))], rest.lstrip("; \n"))
            return True
        if self._skippable(self._held):
            return False
        self._state, self._held = "text", rest
        return True

    def _skippable(self, text: str) -> bool:
        """Whether `text` may still become what stands between calls, so that nobody need see it."""
        rest = text.lstrip()
        marks = (self._form.closing, self._form.opening) if self._form.opening else ()
        return not rest or any(mark.startswith(rest) for mark in marks) or (not marks and not rest.strip("; \n"))

    def _calls(self, text: str) -> list[ToolCall] | None:
        """The calls that `text` spells; None where it does not."""
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return None
        read = [self._call(one) for one in (value if isinstance(value, list) else [value])]
        if not read or None in read:
            return None
        numbered = [
            ToolCall(call_id(self._next + index), name, arguments)
            for index, (name, arguments) in enumerate(one for one in read if one is not None)
        ]
        self._next += len(numbered)
        return numbered

    def _call(self, value: Any) -> tuple[str, str] | None:
        """Name and arguments as JSON; models mix up "arguments" and "parameters", so either is taken."""
        if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in self._names:
            return None
        arguments = value.get("arguments", value.get("parameters"))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments, parse_constant=_no_constant)
            except (ValueError, RecursionError):
                return None
        if arguments is None:
            arguments = {}
        return (value["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None


class _Scan:
    """Finds where a JSON object or list ends, in text that grows; looks at every character once."""

    def __init__(self) -> None:
        self._at = 0
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def end(self, text: str) -> int | None:
        """Where the value ends: 0 where none begins, None while it goes on."""
        for at in range(self._at, len(text)):
            character = text[at]
            if self._quoted:
                self._quoted = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character in "{[":
                self._depth += 1
            elif self._depth == 0:
                if not character.isspace():
                    return 0
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return at + 1
            elif character == '"':
                self._quoted = True
        self._at = len(text)
        return None


def _begun(text: str, mark: str) -> int:
    """How many characters at the end of `text` begin `mark`."""
    return next((count for count in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:count])), 0)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def calls_in(messages: Sequence[Any]) -> int:
    """How many calls the messages of a conversation have: the number of the next one."""
    return sum(len(message.tool_calls) for message in messages)
