"""What can be typed in a conversation besides messages: one row a command.

Knows a conversation and how to say a line; whoever reads the lines does what `Next` says.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from sottovoce.chat.options import ChatOptions
from sottovoce.cli.chat_conversation import Conversation
from sottovoce.errors import InputError
from sottovoce.manifest import printable

Next = Literal["quit", "retry"] | None
Say = Callable[[str], None]
OFF = "off"


@dataclass(frozen=True, slots=True)
class Command:
    """`usage` is what follows the name; `run` gets it, without the space around it."""

    usage: str
    help: str
    run: Callable[[Conversation, str, Say], Next]


def run_command(conversation: Conversation, line: str, say: Say) -> Next:
    """Runs a line that begins with a slash. Raises InputError for a command that does not exist, or as it does."""
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else "/help lists those there are."
        raise InputError(f"no command {printable(name, 40)}; {hint} A message that begins with / is written with //")
    return COMMANDS[name].run(conversation, rest.strip(), say)


def _help(conversation: Conversation, rest: str, say: Say) -> Next:
    for name, command in COMMANDS.items():
        say(f"  {f'{name} {command.usage}':<20} {command.help}")
    say("  //...                a message that begins with /")
    say('A line that ends with \\ goes on in the next one; """ begins a block of lines and ends it.')
    say("Ctrl-C stops an answer, which keeps what was said; Ctrl-D ends the chat.")
    return None


def _system(conversation: Conversation, rest: str, say: Say) -> Next:
    if rest:
        conversation.system = None if rest == OFF else rest
    say(f"system: {printable(conversation.system, 1000)}" if conversation.system else "no system message")
    return None


def _save(conversation: Conversation, rest: str, say: Say) -> Next:
    path = _path(rest, "/save")
    conversation.save(path)
    say(f"saved as {printable(str(path), 500)}")
    return None


def _load(conversation: Conversation, rest: str, say: Say) -> Next:
    path = _path(rest, "/load")
    conversation.load(path)
    say(f"{printable(str(path), 500)}: {len(conversation.messages)} messages")
    return None


def _adapter(conversation: Conversation, rest: str, say: Say) -> Next:
    if rest:
        conversation.use_adapter(None if rest == OFF else _path(rest, "/adapter"))
    say(f"adapter: {printable(str(conversation.adapter), 500)}" if conversation.adapter else "no adapter")
    return None


def _clear(conversation: Conversation, rest: str, say: Say) -> Next:
    conversation.clear()
    say("a new conversation")
    return None


def _retry(conversation: Conversation, rest: str, say: Say) -> Next:
    return "retry"


def _set(conversation: Conversation, rest: str, say: Say) -> Next:
    name, equals, value = (part.strip() for part in rest.partition("="))
    if equals:
        conversation.set_option(name, value)
    elif name:
        raise InputError(f"/set {printable(name, 40)}: NAME=VALUE is needed, or NAME= for the default")
    shown = [f"{name}={printable(str(value))}" for name, value in sorted(conversation.options.items())]
    say("set: " + (", ".join(shown) or "nothing; defaults are the model's or ours"))
    if not rest:
        say("possible: " + ", ".join(one.name for one in fields(ChatOptions)))
    return None


def _stats(conversation: Conversation, rest: str, say: Say) -> Next:
    for line in stats(conversation):
        say(line)
    return None


def _quit(conversation: Conversation, rest: str, say: Say) -> Next:
    return "quit"


def stats(conversation: Conversation) -> Iterator[str]:
    """What the last answer took, how long the conversation is, and what there is room for."""
    answer, chat = conversation.last, conversation.chat
    if answer is not None and answer.usage is not None:
        usage, speed = answer.usage, answer.tokens_per_s
        rate = "" if speed is None else f", {speed:.1f} tokens/s"
        yield f"answer: {usage.completion_tokens} tokens{rate}; the first after {answer.first_token_s or 0.0:.2f} s"
        yield f"prompt: {usage.prompt_tokens} tokens, {usage.cached_tokens} of them known from before"
        if usage.dropped_messages:
            yield f"left out: the {usage.dropped_messages} oldest messages"
    elif answer is not None:
        yield "answer: not counted, as it was not finished"
    used = chat.count_tokens(conversation.messages) if conversation.begun else 0
    yield f"conversation: {used} tokens, with room for {chat.context}"


def _path(rest: str, name: str) -> Path:
    if not rest:
        raise InputError(f"{name} needs the name of a file")
    return Path(rest).expanduser()


COMMANDS: Mapping[str, Command] = {
    "/help": Command("", "this list", _help),
    "/system": Command("TEXT|off", "how the model is to behave; alone shows it", _system),
    "/save": Command("FILE", "keep the conversation, to go on with it later", _save),
    "/load": Command("FILE", "go on with a conversation that was saved", _load),
    "/adapter": Command("FILE|off", "attach a LoRA adapter; alone shows it", _adapter),
    "/clear": Command("", "begin a new conversation", _clear),
    "/retry": Command("", "another answer to the last message", _retry),
    "/set": Command("NAME=VALUE", "an option of answers, as temperature=0.2; alone shows them", _set),
    "/stats": Command("", "tokens, speed and context of the last answer", _stats),
    "/quit": Command("", "end, as Ctrl-D does", _quit),
}
