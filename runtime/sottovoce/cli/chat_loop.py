"""The conversation on a terminal: messages and commands in, answers out, until the user has had enough.

Ctrl-C stops an answer and nothing else; twice at the prompt it ends the chat. Knows the order of things; what is typed,
shown and commanded is known elsewhere.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sottovoce.cli import describe
from sottovoce.cli.chat_answer import Answer, View
from sottovoce.cli.chat_commands import run_command
from sottovoce.cli.chat_conversation import Conversation
from sottovoce.cli.chat_input import Reader
from sottovoce.errors import SottovoceError

Say = Callable[[str], None]
ENDS = "Ctrl-C again, Ctrl-D or /quit ends the chat"


def converse(conversation: Conversation, reader: Reader, view: View, say: Say, notice: Say) -> None:
    """Goes on until the end of input, /quit, or Ctrl-C twice; errors are said and end nothing."""
    interrupted, dropped = False, 0
    while True:
        try:
            text = reader.read()
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            say("")
            if interrupted:
                return
            interrupted = True
            notice(ENDS)
            continue
        except SottovoceError as error:
            notice(f"error: {error}")
            continue
        interrupted = False
        try:
            answer = _respond(conversation, text, view, say)
        except (SottovoceError, OSError, MemoryError) as error:
            notice(f"error: {describe(error)}")
            continue
        except KeyboardInterrupt:
            say("")
            continue
        if answer == "quit":
            return
        if isinstance(answer, Answer):
            dropped = _said_of(answer, dropped, notice)


def _respond(conversation: Conversation, text: str, view: View, say: Say) -> Answer | str | None:
    """What a line asks for: an answer, "quit", or nothing more than was done."""
    if not text.strip():
        return None
    if text.startswith("/") and not text.startswith("//"):
        what = run_command(conversation, text.rstrip(), say)
        if what != "retry":
            return what
        with one_interrupt():
            return conversation.retry(view)
    with one_interrupt():
        return conversation.ask(text[1:] if text.startswith("//") else text, view)


def _said_of(answer: Answer, before: int, notice: Say) -> int:
    """What a user should know of an answer; returns how many messages it was not told of."""
    if answer.stopped:
        notice("stopped" if answer.text else "stopped before anything was said; the message was taken back")
    elif answer.finish_reason == "length":
        notice("the answer ends here because max_tokens or the context is reached")
    dropped = answer.usage.dropped_messages if answer.usage else before
    if dropped > before:
        s = "s" * (dropped != 1)
        notice(f"the context is full: the model no longer sees the {dropped} oldest message{s}")
    return dropped


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Ctrl-C interrupts once; impatient ones after it change nothing until the end."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or before is None:  # run in the background, or set by something that is not Python
        yield
        return

    def once(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
