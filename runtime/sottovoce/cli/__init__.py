"""The `sottovoce` command: finds the module of a subcommand, runs it, and says in one line what went wrong.

A subcommand is a module with `EXAMPLE` (shown under its help), `add_arguments(parser)` and `run(args) -> exit
code`; it is imported only when called. This module knows their names and where they live, and nothing of what
they do.
"""

import argparse
import difflib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TextIO

from sottovoce import __version__
from sottovoce.errors import InputError, SottovoceError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

DONE, FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
HOST_GROUP = "sottovoce.commands"  # entry points of the compiler: command name -> module
HOST_DISTRIBUTION = "sottovoce-compiler"

DEVICE_COMMANDS: Mapping[str, tuple[str, str]] = {  # name -> (module, one line of help)
    "transcribe": ("sottovoce.cli.transcribe", "recordings in, text out"),
    "listen": ("sottovoce.cli.listen", "microphone or raw samples in, live text out"),
    "chat": ("sottovoce.cli.chat", "questions in, answers out: a conversation, or one answer from a script"),
    "verify": ("sottovoce.cli.verify", "check that a bundle is whole and gives the results it was made with"),
    "bench": ("sottovoce.cli.bench", "load time, time to the first result, speed and peak memory here"),
    "inspect": ("sottovoce.cli.inspect", "what a bundle holds and what was measured on it"),
    "doctor": ("sottovoce.cli.doctor", "what this machine can run, and what to install for the rest"),
    "completion": ("sottovoce.cli.completion", "print the completion script for bash, zsh or fish"),
}
HOST_COMMANDS: Mapping[str, str] = {  # name -> one line of help; shown where the compiler is installed
    "compile": "make a bundle for a target out of a model",
    "finetune": "train a LoRA adapter on your data, for speech or chat, and measure what it changed",
    "adapter": "make a LoRA adapter into a file that a chat can attach",
    "evaluate": "measure a bundle or a model on recordings with known text, or on text",
    "targets": "the machines that can be compiled for",
    "demo": "fetch, compile, verify and transcribe, from nothing to a table of results",
}
USAGE = "usage: sottovoce COMMAND [ARGUMENT...]        sottovoce COMMAND --help"


class Command(Protocol):
    """What a subcommand's module has."""

    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command line."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Does the work; returns the exit code, or raises a SottovoceError."""
        ...


class Parser(argparse.ArgumentParser):
    """An argument parser that raises where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError with the message and the way to the help."""
        raise InputError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (`sys.argv` without the program's name if None) and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a letter shows "?" and the rest
    with _warnings_as_lines():
        try:
            code = _dispatch(arguments)
            sys.stdout.flush()  # a full disk shows here, where it can still be reported
            return code
        except BrokenPipeError:
            _silence(sys.stdout)
            return BROKEN_PIPE
        except KeyboardInterrupt:
            return INTERRUPTED
        except Exception as error:
            return _report(error)


def load_command(name: str) -> Command:
    """The module of a command of this installation. Raises InputError when there is none."""
    if name in DEVICE_COMMANDS:
        return _as_command(import_module(DEVICE_COMMANDS[name][0]))
    host = host_entry_points()
    if name in host:
        return _as_command(host[name].load())
    if name in HOST_COMMANDS:
        raise InputError(f"'{name}' is the compiler's, which runs on a workstation: pip install {HOST_DISTRIBUTION}")
    close = difflib.get_close_matches(name, installed_commands(), n=1)
    hint = f"; did you mean {close[0]}?" if close else "; see sottovoce --help"
    raise InputError(f"no command '{name}'{hint}")


def make_parser(name: str, command: Command) -> Parser:
    """The parser of one command."""
    parser = Parser(
        prog=f"sottovoce {name}",
        description=DEVICE_COMMANDS[name][1] if name in DEVICE_COMMANDS else HOST_COMMANDS.get(name),
        epilog=f"example:\n{_indented(command.EXAMPLE)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return parser


def installed_commands() -> dict[str, str]:
    """Name -> one line of help of every command that can be called here."""
    device = {name: line for name, (_, line) in DEVICE_COMMANDS.items()}
    return device | {name: HOST_COMMANDS.get(name, "") for name in _in_order(host_entry_points())}


def host_entry_points() -> "dict[str, EntryPoint]":
    """The commands that the compiler, if installed, adds; a name of the device's own is not taken over."""
    from importlib.metadata import entry_points  # 20 ms that most commands need not spend

    found = {point.name: point for point in entry_points(group=HOST_GROUP)}
    return {name: point for name, point in found.items() if name not in DEVICE_COMMANDS}


def _indented(example: str) -> str:
    return indent(dedent(example).strip("\n"), "  ")


def _in_order(names: Mapping[str, Any]) -> list[str]:
    return [name for name in HOST_COMMANDS if name in names] + sorted(set(names) - set(HOST_COMMANDS))


def _as_command(module: Any) -> Command:
    command: Command = module
    return command


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(), file=sys.stdout if arguments else sys.stderr)
        return DONE if arguments else BAD_INPUT
    if arguments[0] in ("-V", "--version"):
        print(f"sottovoce {__version__}")
        return DONE
    if arguments[0].startswith("-"):
        raise InputError(f"no option {arguments[0]!r} before a command; see sottovoce --help")
    command = load_command(arguments[0])
    parser = make_parser(arguments[0], command)
    try:
        args = parser.parse_args(arguments[1:])
    except SystemExit as stop:  # --help
        return stop.code if isinstance(stop.code, int) else FAILED
    return command.run(args)


def _help() -> str:
    device = [(name, line) for name, (_, line) in DEVICE_COMMANDS.items()]
    host = [(name, line) for name, line in installed_commands().items() if name not in DEVICE_COMMANDS]
    lines = [USAGE, "", "on this device:", *_columns(device)]
    if host:
        lines += ["", "on this workstation:", *_columns(host)]
    options = [("--version", "print the version"), ("--help", "print this")]
    return "\n".join([*lines, "", "options:", *_columns(options)])


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"  {name:<12} {line}".rstrip() for name, line in rows]


def _report(error: Exception) -> int:
    """Prints what went wrong in one line; the traceback only for those who ask for it."""
    if os.environ.get("SOTTOVOCE_DEBUG") == "1":
        traceback.print_exception(error)
    code = error.exit_code if isinstance(error, SottovoceError) else FAILED
    print(f"sottovoce: error: {describe(error)}", file=sys.stderr)
    if isinstance(error, OSError):
        _silence(sys.stdout)  # what could not be written once would fail again at exit
    return code


def describe(error: Exception) -> str:
    """An error as the line that users see, without the program's name."""
    if isinstance(error, SottovoceError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "out of memory; a smaller model, or --batch-size 1, needs less"
    return f"unexpected {type(error).__name__}: {error}; SOTTOVOCE_DEBUG=1 shows where"


def _silence(stream: TextIO) -> None:
    """Points a stream that cannot be written at nothing, so that the interpreter's last flush is quiet."""
    with suppress(OSError, ValueError):  # not a real file, as under a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Warnings, such as a bundle's unknown key, as one line on stderr without their place in the source."""

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        print(f"sottovoce: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]  # the hook that the module documents
        yield
