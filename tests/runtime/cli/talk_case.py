"""A chat that answers what a test wrote down, whatever it is asked; runs as a program too, for tests on a terminal."""

import sys
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from sottovoce.chat.types import Delta, FinishReason, Usage
from sottovoce.errors import BundleError, InputError

Script = Callable[[Sequence[Any]], list[Delta]]


def usage(**changes: int) -> Usage:
    return Usage(**{"prompt_tokens": 12, "completion_tokens": 3, "cached_tokens": 4, **changes})


def last(text: str = "", reason: FinishReason = "stop", **changes: int) -> Delta:
    return Delta(text, finish_reason=reason, usage=usage(**changes))


def echo(messages: Sequence[Any]) -> list[Delta]:
    """Says who spoke how often, and the last message: in three pieces."""
    roles = "".join(message["role"][0] for message in messages)
    return [Delta(f"[{roles}] "), Delta(messages[-1]["content"][::-1]), last("!")]


class FakeChat:
    """Says what `script` says. `asked` are messages and options of each question, `log` what else was done."""

    made: "list[FakeChat]" = []  # noqa: RUF012  # reset by the fixture
    script: Script = staticmethod(echo)
    note, engine, context = "a note", "fake 1", 100
    error: BaseException | None = None  # raised after the last delta

    def __init__(self, path: str, threads: int | None = None, context: int | None = None) -> None:
        self.path, self.threads, self.wanted = path, threads, context
        self.asked: list[tuple[list[Any], dict[str, Any]]] = []
        self.log: list[Any] = []
        self.saved: dict[Path, list[Any]] = {}
        self.made.append(self)

    def load(self) -> None:
        self.log.append("load")

    def close(self) -> None:
        self.log.append("close")

    def render(self, messages: Sequence[Any]) -> str:
        if str(self.path).startswith("base"):
            raise InputError("this model has no chat template")
        return "rendered"

    def stream(self, messages: Sequence[Any], **options: Any) -> Generator[Delta, None, None]:
        self.asked.append(([dict(message) for message in messages], options))
        if messages[-1]["content"] == "refused":
            raise InputError("the message is refused")
        return self._deltas(messages)

    def complete(self, text: str, **options: Any) -> Generator[Delta, None, None]:
        self.asked.append(([text], options))
        return self._deltas([{"role": "text", "content": text}])

    def _deltas(self, messages: Sequence[Any]) -> Generator[Delta, None, None]:
        yield from type(self).script(messages)
        if self.error is not None:
            raise self.error

    def count_tokens(self, messages: Sequence[Any]) -> int:
        return 10 * len(messages)

    def attach_adapter(self, path: Path, scale: float = 1.0) -> None:
        if "wrong" in str(path):
            raise BundleError(f"{path} was made for another model")
        self.log.append(("attach", str(path)))

    def detach_adapters(self) -> None:
        self.log.append("detach")

    def save_session(self, path: Path, messages: Sequence[Any]) -> None:
        if "nowhere" in str(path):
            raise InputError(f"the session cannot be saved as {path}")
        self.saved[Path(path)] = list(messages)
        path.write_text("a session")

    def load_session(self, path: Path) -> list[Any]:
        if not path.exists():
            raise InputError(f"the session {path} cannot be read")
        return [{"role": "user", "content": "before"}, {"role": "assistant", "content": "yes"}]


def endless(messages: Sequence[Any]) -> Generator[Delta, None, None]:
    """An answer that only Ctrl-C stops, unless it is asked for something short."""
    if messages[-1]["content"] != "long":
        yield from echo(messages)
        return
    yield Delta(reasoning="hm")
    yield Delta("once upon ")
    never = threading.Event()
    while True:
        never.wait(0.01)


def _main() -> int:
    import sottovoce
    from sottovoce.cli import main

    FakeChat.script = staticmethod(endless)  # type: ignore[assignment]
    vars(sottovoce)["Chat"] = FakeChat
    return main(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(_main())
