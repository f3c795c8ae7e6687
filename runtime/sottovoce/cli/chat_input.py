"""Messages typed on a terminal: lines that are edited, remembered, and joined to longer messages.

A line that ends with a backslash goes on in the next one; three double quotes open a block and close it; a pasted text
of several lines is one message where the terminal tells that it was pasted. Knows terminals and the file of the
history; knows nothing of what is done with a message.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sottovoce.errors import InputError

PROMPT, MORE = "> ", ". "
QUOTES = '"""'
MAX_ENTRIES = 1000
MAX_ENTRY = 10_000  # characters; longer messages are not remembered
MAX_BYTES = 1 << 20  # of the file that are read


class Reader(Protocol):
    """Gives one message after another."""

    def read(self) -> str:
        """The next message. Raises EOFError at the end, KeyboardInterrupt for Ctrl-C, InputError for what is no
        text."""
        ...

    def close(self) -> None:
        """Keeps what is worth keeping."""
        ...


@dataclass
class Messages:
    """Joins what `read_line(prompt)` gives to messages; `history` remembers them."""

    read_line: Callable[[str], str]
    history: "History | None" = None

    def read(self) -> str:
        """See `Reader`. The end of input within a message ends the message."""
        try:
            text = self._read()
        except UnicodeDecodeError as error:
            raise InputError(f"that was no {error.encoding} text; nothing was sent") from None
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if self.history is not None and text.strip():
            self.history.add(text)
        return text

    def close(self) -> None:
        if self.history is not None:
            self.history.save()

    def _read(self) -> str:
        line = self.read_line(PROMPT)
        if line.lstrip().startswith(QUOTES):
            return self._block(line.lstrip()[len(QUOTES) :])
        lines = [line]
        while lines[-1].endswith("\\") and (more := self._more()) is not None:
            lines[-1:] = [lines[-1][:-1], more]
        return "\n".join(lines)

    def _block(self, begun: str) -> str:
        lines = [begun]
        while not lines[-1].rstrip().endswith(QUOTES):
            more = self._more()
            if more is None:
                return "\n".join(lines).strip("\n")
            lines.append(more)
        return "\n".join(lines).rstrip()[: -len(QUOTES)].strip("\n")

    def _more(self) -> str | None:
        try:
            return self.read_line(MORE)
        except EOFError:
            return None


@dataclass
class History:
    """What was typed before, one JSON string a line in a file that only its owner may read."""

    path: Path
    remember: Callable[[str], None] = lambda text: None  # where the arrow keys find it
    _new: list[str] = field(default_factory=list)

    def load(self) -> list[str]:
        """The entries, the oldest first; nothing where the file cannot be read, and not those that are damaged."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_BYTES))
                lines = file.read(MAX_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        entries = []
        for line in lines[-MAX_ENTRIES:]:
            with suppress(ValueError, RecursionError):
                entry = json.loads(line)
                entries += [entry] if isinstance(entry, str) and len(entry) <= MAX_ENTRY else []
        return entries

    def add(self, text: str) -> None:
        """Remembers a message, but for a long one or the same again."""
        if len(text) <= MAX_ENTRY and self._new[-1:] != [text]:
            self._new.append(text)
            self.remember(text)

    def save(self) -> None:
        """Writes what is new behind what other chats have written meanwhile. A history that cannot be kept is lost
        quietly: it is a comfort."""
        if not self._new:
            return
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            entries = [*self.load(), *self._new][-MAX_ENTRIES:]
            handle, name = tempfile.mkstemp(prefix=".history-", dir=self.path.parent)  # of mode 0600
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.writelines(json.dumps(entry) + "\n" for entry in entries)
                os.replace(name, self.path)
            except BaseException:
                os.unlink(name)
                raise
        self._new.clear()


def open_messages(commands: Sequence[str]) -> Messages:
    """Messages of the terminal on stdin: edited with `readline` where Python has it, with `commands` completed."""
    if not sys.stdout.isatty():
        return Messages(_without_prompt_on_stdout)
    history = History(history_path())
    with suppress(ImportError):
        history.remember = _begin_readline(history.load(), commands)
    return Messages(input, history)


def history_path() -> Path:
    """In the user's folder for state (XDG base directory specification)."""
    folder = os.environ.get("XDG_STATE_HOME", "")
    return (Path(folder) if os.path.isabs(folder) else Path.home() / ".local" / "state") / "sottovoce" / "chat-history"


def _begin_readline(entries: Sequence[str], commands: Sequence[str]) -> Callable[[str], None]:
    import readline

    def complete(text: str, state: int) -> str | None:
        found = [name + " " for name in commands if text.startswith("/") and name.startswith(text)]
        return found[state] if state < len(found) else None

    if "libedit" in (readline.__doc__ or ""):
        readline.parse_and_bind("bind ^I rl_complete")
    else:
        readline.parse_and_bind("tab: complete")
        readline.parse_and_bind("set enable-bracketed-paste on")
    readline.set_completer(complete)
    readline.set_completer_delims(" \n")
    readline.set_auto_history(False)  # a message may have several lines
    for entry in entries:
        readline.add_history(entry)
    return readline.add_history


def _without_prompt_on_stdout(prompt: str) -> str:
    """The answers go elsewhere, and the prompt does not belong to them."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()
