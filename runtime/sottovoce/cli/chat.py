"""`sottovoce chat`: questions in, answers out, in a conversation or one at a time.

Knows the command line, files and pipes. Knows nothing of how an answer is made, nor of what a conversation looks like
(chat_loop.py).
"""

import argparse
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sottovoce
from sottovoce.cli import DONE, INTERRUPTED
from sottovoce.cli.chat_answer import Answer, Shown, Unseen, dimmed
from sottovoce.cli.chat_conversation import Conversation
from sottovoce.cli.screen import print_notice
from sottovoce.errors import IncompleteOutputError, InputError
from sottovoce.manifest import printable

EXAMPLE = """\
  sottovoce chat smollm2.svb
  sottovoce chat smollm2.gguf --prompt "Why is the sky blue?"
  git diff | sottovoce chat smollm2.svb --prompt "Write a commit message for this:"
  sottovoce chat smollm2.svb --prompt "Invent a person" --schema person.json
"""

STDIN = "-"
MAX_INPUT = 32 << 20  # bytes
MAX_SCHEMA = 1 << 20  # bytes
OPTIONS = ("temperature", "top_p", "top_k", "seed", "max_tokens", "stop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("bundle", metavar="BUNDLE", help="what `sottovoce compile` made, or a .gguf file")
    parser.add_argument("--prompt", metavar="TEXT", help="answer this and end; - for standard input")
    parser.add_argument("--system", metavar="TEXT", help="how the model is to behave")
    parser.add_argument("--schema", metavar="FILE", type=Path, help="answer with JSON that this JSON schema allows")
    parser.add_argument("--json", action="store_true", help="print one JSON object: text, usage, speed and more")
    parser.add_argument("--session", metavar="FILE", type=Path, help="go on with this conversation, and keep it there")
    parser.add_argument("--adapter", metavar="FILE", type=Path, help="attach a LoRA adapter (GGUF)")
    parser.add_argument("--context", metavar="N", type=int, help="tokens to have room for")
    parser.add_argument("--threads", metavar="N", type=int, help="processor threads (default: what suits this machine)")
    parser.add_argument("--temperature", metavar="X", type=float, help="0 always takes the likeliest token")
    parser.add_argument("--top-p", metavar="X", type=float, help="only the likeliest tokens of this probability")
    parser.add_argument("--top-k", metavar="N", type=int, help="only so many of the likeliest tokens; 0 for all")
    parser.add_argument("--seed", metavar="N", type=int, help="the same seed gives the same text")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="longest answer")
    parser.add_argument("--stop", metavar="TEXT", action="append", help="end before this text; may be given repeatedly")
    parser.add_argument("--raw", action="store_true", help="continue the text itself, without the model's template")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 where an answer that had to be whole was cut off."""
    prompt = _prompt(args)
    _check(args, prompt)
    options = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    form = None if args.schema is None else read_schema_file(args.schema)
    with closing(sottovoce.Chat(args.bundle, threads=args.threads, context=args.context)) as chat:
        chat.load()
        if prompt is None:
            options["overflow"] = "drop_oldest"
        conversation = Conversation(chat, options, form)
        if args.adapter is not None:
            conversation.use_adapter(args.adapter)
        if args.raw and prompt is not None:
            return _continue(conversation, prompt, args.json)
        with _session(conversation, args.session):
            if args.system is not None:
                conversation.system = args.system
            return _talk(conversation, args) if prompt is None else _answer(conversation, prompt, args.json)


def _check(args: argparse.Namespace, prompt: str | None) -> None:
    """Raises InputError for options that do not go together, before anything is loaded."""
    if prompt is None:
        for name in ("json", "raw"):
            if getattr(args, name):
                raise InputError(f"--{name} is for one answer: add --prompt TEXT, or a pipe")
    if args.raw:
        for name in ("system", "schema", "session"):
            if getattr(args, name) is not None:
                raise InputError(f"--raw continues a text as it is: --{name} has no place in it")


def _prompt(args: argparse.Namespace) -> str | None:
    """What is to be answered, None for a conversation: the option, a pipe, or the one and then the other."""
    if args.prompt is None and sys.stdin is not None and sys.stdin.isatty():
        return None
    piped = _read_stdin() if args.prompt in (None, STDIN) or _has_input() else ""
    given = "" if args.prompt in (None, STDIN) else args.prompt
    text: str = "\n\n".join(part for part in (given, piped) if part)
    if not text.strip():
        raise InputError("there is nothing to answer: the prompt is empty; give --prompt TEXT, or a pipe")
    return text


def _has_input() -> bool:
    """Whether standard input is a pipe or a file: a service's or a test's may be anything, and be silent for ever."""
    if sys.stdin is None or sys.stdin.isatty():
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read_stdin() -> str:
    """All of standard input, without the line breaks at its end."""
    data = sys.stdin.buffer.read(MAX_INPUT + 1) if sys.stdin is not None else b""
    if len(data) > MAX_INPUT:
        raise InputError(f"standard input has more than {MAX_INPUT >> 20} MB, which no context holds")
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is no UTF-8 text: byte {error.start}; iconv -t UTF-8 makes it one") from None


def read_schema_file(path: Path) -> Mapping[str, Any]:
    """The `response_format` for the JSON schema in a file. Raises InputError where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SCHEMA + 1)
    except OSError as error:
        raise InputError(f"--schema {path}: {error.strerror}") from None
    if len(data) > MAX_SCHEMA:
        raise InputError(f"--schema {path}: more than {MAX_SCHEMA} bytes")
    try:
        schema = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"--schema {path} is no JSON: {printable(str(error))}") from None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@contextmanager
def _session(conversation: Conversation, path: Path | None) -> Iterator[None]:
    """The conversation that a file holds, and at the end the file that holds the conversation."""
    if path is not None and path.exists():
        conversation.load(path)
    before = list(conversation.messages)
    try:
        yield
    finally:
        if path is not None and conversation.begun and conversation.messages != before:
            conversation.save(path)


def _answer(conversation: Conversation, prompt: str, as_json: bool) -> int:
    """One answer on stdout; of one that had to be whole and is not, what there is, and then the error."""
    view = Unseen() if as_json else Shown(sys.stdout, sys.stderr)
    error: IncompleteOutputError | None = None
    try:
        conversation.ask(prompt, view)
    except IncompleteOutputError as cut:
        error = cut
    assert conversation.last is not None
    return _ended(conversation.last, conversation, as_json, error)


def _continue(conversation: Conversation, text: str, as_json: bool) -> int:
    """What follows a text, on stdout."""
    answer = conversation.last = Answer()
    view = Unseen() if as_json else Shown(sys.stdout, sys.stderr)
    answer.follow(conversation.chat.complete(text, **conversation.options), view)
    return _ended(answer, conversation, as_json, None)


def _ended(answer: Answer, conversation: Conversation, as_json: bool, error: IncompleteOutputError | None) -> int:
    if as_json and not answer.stopped:
        print(json.dumps(answer.to_json(conversation.chat.engine), ensure_ascii=False))
    if error is not None:
        raise error
    if answer.finish_reason == "length" and "max_tokens" not in conversation.options:
        print_notice("the answer is cut off: the context is full, or the model's own limit is reached", sys.stderr)
    return INTERRUPTED if answer.stopped else DONE


def _talk(conversation: Conversation, args: argparse.Namespace) -> int:
    """A conversation on this terminal."""
    from sottovoce.cli.chat_commands import COMMANDS
    from sottovoce.cli.chat_input import open_messages
    from sottovoce.cli.chat_loop import converse

    # A model that was not made to answer says so now, and not when the first message is written.
    system = conversation.messages[: 0 if conversation.system is None else 1]
    conversation.chat.render([*system, {"role": "user", "content": "Hello"}])
    for line in introduction(conversation, Path(args.bundle)):
        print(dimmed(line, sys.stderr), file=sys.stderr)
    with closing(open_messages(list(COMMANDS))) as reader:
        converse(
            conversation,
            reader,
            Shown(sys.stdout, sys.stderr),
            say=lambda line: print(line, file=sys.stderr, flush=True),
            notice=lambda line: print_notice(line, sys.stderr),
        )
    return DONE


def introduction(conversation: Conversation, path: Path) -> Iterator[str]:
    """What is being talked to: the model, the engine, the room, and what is known of it."""
    chat = conversation.chat
    known = "; ".join(part for part in (chat.note, _measured(path)) if part)
    yield f"{printable(path.name, 200)}: {chat.engine}, context {chat.context} tokens{f'; {known}' if known else ''}"
    if conversation.begun:
        yield f"goes on with {len(conversation.messages)} messages"
    yield "/help lists commands, Ctrl-D ends"


def _measured(path: Path) -> str:
    """One line of a bundle's report, "" where it has none."""
    from sottovoce.bundle import open_bundle
    from sottovoce.chat.loading import is_gguf

    report = {} if is_gguf(path) else open_bundle(path).report()
    quality = report.get("quality")
    found = quality if isinstance(quality, Mapping) else {}
    told = []
    for key, text in (("perplexity", "perplexity {:.2f}"), ("kl", "KL from its source {:.3f}")):
        value = found.get(key)
        if isinstance(value, int | float):
            told.append(text.format(value))
    return ", ".join(told)
