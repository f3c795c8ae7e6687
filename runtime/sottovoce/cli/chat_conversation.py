"""A conversation at the command line: what was said, how answers are asked for, and what it is saved as.

Knows a `Chat` and messages; knows nothing of terminals, beyond that a view shows an answer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sottovoce.chat.options import ChatOptions
from sottovoce.chat.types import Message
from sottovoce.cli.chat_answer import Answer, View
from sottovoce.errors import IncompleteOutputError, InputError

if TYPE_CHECKING:
    from sottovoce.chat.chat import Chat

_TEXTS = ("stop", "overflow")  # options whose value is text, also where it looks like a number


@dataclass
class Conversation:
    """`options` are those of `ChatOptions` that were set; `last` is the newest answer."""

    chat: "Chat"
    options: dict[str, Any]
    response_format: Mapping[str, Any] | None = None
    messages: list[Message] = field(default_factory=list)
    adapter: Path | None = None
    last: Answer | None = None

    @property
    def system(self) -> str | None:
        """The system message, where there is one."""
        first = self.messages[0] if self.messages else {}
        return str(first.get("content")) if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages if self.system is None else self.messages[1:]
        self.messages = ([] if text is None else [{"role": "system", "content": text}]) + rest

    @property
    def begun(self) -> bool:
        """Whether anything was said."""
        return any(message.get("role") != "system" for message in self.messages)

    def ask(self, text: str, view: View) -> Answer:
        """The answer to a new message. Ctrl-C stops it; what was said until then is the answer.

        Raises what `Chat.stream` raises. A message to which nothing was answered is taken back.
        """
        return self._answer([*self.messages, {"role": "user", "content": text}], view)

    def retry(self, view: View) -> Answer:
        """Another answer to the last message. Raises InputError where there is none."""
        asked = [at for at, message in enumerate(self.messages) if message.get("role") == "user"]
        if not asked:
            raise InputError("nothing was asked yet")
        return self._answer(self.messages[: asked[-1] + 1], view)

    def _answer(self, messages: list[Message], view: View) -> Answer:
        self.last = answer = Answer()
        try:
            answer.follow(self.chat.stream(messages, response_format=self.response_format, **self.options), view)
        except KeyboardInterrupt:
            answer.stopped = True
        except IncompleteOutputError:
            self._keep(messages, answer)
            raise
        self._keep(messages, answer)
        return answer

    def _keep(self, messages: list[Message], answer: Answer) -> None:
        if answer.text or answer.tool_calls:
            self.messages = [*messages, answer.message()]

    def clear(self) -> None:
        """Begins anew, with the same system message."""
        self.messages = self.messages[: 0 if self.system is None else 1]
        self.last = None

    def set_option(self, name: str, value: str) -> None:
        """Sets an option from text, or with none goes back to its default. Raises InputError for what is not
        possible."""
        parsed = _parsed(name, value)
        ChatOptions.of({}, **{name: parsed})
        self.options.pop(name, None)
        if parsed is not None:
            self.options[name] = parsed

    def save(self, path: Path) -> None:
        """Writes messages and cache. Raises InputError where that cannot be."""
        if not self.begun:
            raise InputError("nothing was said yet, so there is nothing to save")
        self.chat.save_session(path, self.messages)

    def load(self, path: Path) -> None:
        """Goes on with a saved conversation. Raises InputError for a file that is none of this model's."""
        self.messages = self.chat.load_session(path)
        self.last = None

    def use_adapter(self, path: Path | None) -> None:
        """Attaches an adapter in place of the present one, or none. Raises InputError or BundleError for one that does
        not fit; the present one is then still there."""
        self.chat.detach_adapters()
        try:
            if path is not None:
                self.chat.attach_adapter(path)
        except BaseException:
            if self.adapter is not None:
                self.chat.attach_adapter(self.adapter)
            raise
        self.adapter = path


def _parsed(name: str, value: str) -> Any:
    if not value:
        return None
    if name in _TEXTS and not value.startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
