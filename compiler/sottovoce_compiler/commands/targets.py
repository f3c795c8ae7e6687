"""`sottovoce targets`: the machines that a model can be compiled for."""

import argparse
import json
import sys

from sottovoce_compiler.report.table import Table, show
from sottovoce_targets import ENGINES, Target, list_targets, load_target

EXAMPLE = """\
  sottovoce targets                    all of them
  sottovoce targets raspberry-pi-5     one in detail
  sottovoce targets ./my-board.toml    your own, checked"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="the target, or your own .toml file, to show in detail (default: list all)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints one target or all; 0, or an `InputError` for a name that there is not."""
    targets = [load_target(name) for name in ([args.name] if args.name else list_targets())]
    if args.json:
        found = targets[0].to_json() if args.name else {"targets": [target.to_json() for target in targets]}
        print(json.dumps(found, indent=2))
    else:
        show([_detail(targets[0]) if args.name else _overview(targets)], sys.stdout)
        if args.name:
            print("\n".join((*targets[0].notes, *targets[0].sources)))
    return 0


def _overview(targets: list[Target]) -> Table:
    rows = (
        (
            target.name,
            target.description,
            str(target.cores),
            str(target.memory_mb),
            target.formats[0],
            target.precision,
            target.chat.formats[0],
            target.chat.precision,
        )
        for target in targets
    )
    heads = ("target", "machine", "cores", "MB", "speech", "precision", "chat", "precision")
    return Table("", heads, tuple(rows))


def _detail(target: Target) -> Table:
    rows = [
        (key, ", ".join(value) if isinstance(value, list) else str(value))
        for key, value in target.to_json().items()
        if key not in ("formats", "gate", "stream", "notes", "sources", "chat")
    ]
    rows += [("formats", _formats(target.formats))]
    rows += [(f"gate: {limit}", str(value)) for limit, value in target.gate.items()]
    chat = target.chat
    rows += [("chat", f"{chat.precision}, {chat.context} positions")]
    rows += [("chat formats", _formats(chat.formats))]
    rows += [(f"chat gate: {limit}", str(value)) for limit, value in chat.gate.items()]
    rows += [(f"stream: {setting}", str(value)) for setting, value in target.stream.items()]
    return Table("", ("fact", "value"), tuple(rows))


def _formats(formats: tuple[str, ...]) -> str:
    return ", ".join(f"{form} ({ENGINES[form]})" for form in formats)
