"""An answer as it comes: what was said so far, how long it took, and what it looks like.

The answer itself goes to stdout and everything else to stderr. Knows deltas and text streams; knows nothing of what
makes the deltas.
"""

import re
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from os import environ
from typing import Any, Protocol, TextIO

from sottovoce.chat.types import Completion, Delta, FinishReason, ToolCall, Usage
from sottovoce.errors import IncompleteOutputError

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and line breaks
_FEW = 3  # pieces of an answer, of which no speed can be told


class View(Protocol):
    """Shows one answer after another."""

    def delta(self, delta: Delta) -> None:
        """The next piece."""
        ...

    def end(self) -> None:
        """Leaves the screen tidy behind an answer; more may follow."""
        ...


@dataclass
class Answer:
    """What was said so far, whatever happens to the rest. Times are seconds of `time.perf_counter`."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    stopped: bool = False  # by the user
    began: float = field(default_factory=time.perf_counter)
    first: float | None = None
    last: float | None = None
    pieces: int = 0

    def follow(self, deltas: Generator[Delta, None, None], view: View) -> None:
        """Takes in and shows all of it. Raises what the answer raises; what came before that is kept and shown."""
        with closing(deltas):
            try:
                for delta in deltas:
                    self._take(delta, view)
            except IncompleteOutputError as error:  # has what was held back as well
                self._take(Delta(error.partial[len(self.text) :], finish_reason="length"), view)
                raise
            finally:
                view.end()

    def _take(self, delta: Delta, view: View) -> None:
        self.add(delta)
        view.delta(delta)

    def add(self, delta: Delta) -> None:
        """Takes in the next piece."""
        self.last = time.perf_counter()
        self.first = self.last if self.first is None else self.first
        self.pieces += 1
        self.text += delta.text
        self.reasoning += delta.reasoning
        self.tool_calls += delta.tool_calls
        self.finish_reason, self.usage = delta.finish_reason, delta.usage

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the question to the first text."""
        return None if self.first is None else self.first - self.began

    @property
    def tokens_per_s(self) -> float | None:
        """From the first text on, so without the prompt; None where too little came to tell."""
        if self.usage is None or self.first is None or self.last is None or self.pieces < _FEW:
            return None
        seconds = self.last - self.first
        return (self.usage.completion_tokens - 1) / seconds if seconds > 0 else None

    def message(self) -> dict[str, Any]:
        """The answer as a message of the conversation."""
        usage = self.usage or Usage(0, 0)
        whole = Completion(self.text, self.reasoning, self.tool_calls, self.finish_reason or "stop", usage)
        return whole.message()

    def to_json(self, engine: str) -> dict[str, Any]:
        usage = None if self.usage is None else asdict(self.usage) | {"total_tokens": self.usage.total_tokens}
        return {
            "text": self.text,
            "reasoning": self.reasoning,
            "tool_calls": [asdict(call) for call in self.tool_calls],
            "finish_reason": self.finish_reason,
            "usage": usage,
            "engine": engine,
            "tokens_per_s": _rounded(self.tokens_per_s, 2),
            "first_token_s": _rounded(self.first_token_s, 4),
        }


class Unseen:
    """A view of nothing."""

    def delta(self, delta: Delta) -> None:
        """Is not shown."""

    def end(self) -> None:
        """Is not shown."""


class Shown:
    """Text on `out`, at once; thinking and tool calls on `err`, where that is a terminal, dim where it has colours."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out, self._err = out, err
        self._dim = has_colours(err)
        self._thinking = False
        self._open = False  # a line of text that is not ended

    def delta(self, delta: Delta) -> None:
        """Shows what is new."""
        if delta.reasoning and self._err.isatty():
            self._think(delta.reasoning)
        if delta.text:
            self._end_thinking()
            text = printable_lines(delta.text) if self._out.isatty() else delta.text
            self._out.write(text)
            self._out.flush()
            self._open = not text.endswith("\n") if text else self._open
        for call in delta.tool_calls:
            self._call(call)

    def end(self) -> None:
        """Ends the line."""
        self._end_thinking()
        if self._open:
            self._open = False
            self._out.write("\n")
            self._out.flush()

    def _think(self, text: str) -> None:
        if not self._thinking:
            self._thinking = True
            self._err.write(DIM if self._dim else "(thinking)\n")
        self._err.write(printable_lines(text))
        self._err.flush()

    def _end_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            self._err.write(f"{PLAIN}\n\n" if self._dim else "\n(answer)\n")
            self._err.flush()

    def _call(self, call: ToolCall) -> None:
        if self._err.isatty():
            self.end()
            line = printable_lines(f"calls {call.name}({call.arguments})").replace("\n", " ")
            print(dimmed(line, self._err), file=self._err, flush=True)


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows dim text, and whose user has nothing against it (no-color.org)."""
    return stream.isatty() and environ.get("TERM") != "dumb" and not environ.get("NO_COLOR")


def dimmed(line: str, stream: TextIO) -> str:
    return f"{DIM}{line}{PLAIN}" if has_colours(stream) else line


def printable_lines(text: str) -> str:
    """Without what a terminal would obey, but for tabs and line breaks."""
    return _CONTROL.sub("", text)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
