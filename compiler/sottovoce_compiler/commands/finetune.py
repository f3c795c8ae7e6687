"""`sottovoce finetune`: a model and a user's data in, a LoRA adapter out, with what it changed measured."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sottovoce.cli import INTERRUPTED
from sottovoce_compiler.finetune.settings import GROUPS, Option, options
from sottovoce_compiler.report.questions import unescaped

if TYPE_CHECKING:
    from sottovoce_compiler.finetune.pipeline import Finetuned, Request

EXAMPLE = """\
  sottovoce finetune smollm2-135m-instruct --data questions.jsonl -o my-lora
  sottovoce finetune smollm2-135m-instruct --data lines.jsonl --answer-marker '\\nA: ' --measure exact_match -o my-lora
  sottovoce finetune whisper-base --data recordings.jsonl -o my-lora
  sottovoce finetune Qwen/Qwen3-0.6B --config mine.toml -o my-lora --explain
  sottovoce finetune smollm2-135m-instruct -o my-lora --resume
  torchrun --nproc-per-node 2 --no-python sottovoce finetune Qwen/Qwen3-0.6B --data lines.jsonl -o my-lora
  sottovoce compile smollm2-135m-instruct --adapter my-lora --target raspberry-pi-5 -o mine.svb"""

_TYPES = {int: int, float: float, str: str}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="the model: a short name (whisper-base, smollm2-135m-instruct), a Hub id, a folder or a .gguf file",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="ADAPTER", help="the folder to write, in PEFT's format"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="options by name, as TOML or an adapter's settings.json; those given here win"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with a run that was stopped, with its own settings"
    )
    parser.add_argument(
        "--explain", action="store_true", help="say what would be done, and how long it takes; train nothing"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    groups = {name: parser.add_argument_group(name, about) for name, about in GROUPS.items()}
    for name, (kind, default, option) in options().items():
        _add(groups[option.group], name, kind, default, option)


def run(args: argparse.Namespace) -> int:
    """Trains, or explains; 130 where it was stopped and everything is saved."""
    from sottovoce_compiler.finetune.pipeline import Request

    request = Request(
        args.source,
        Path(args.output),
        _chosen(args),
        Path(args.config) if args.config else None,
        args.resume,
    )
    return _explain(request, args.json) if args.explain else _finetune(request, args.json)


def _finetune(request: "Request", as_json: bool) -> int:
    from sottovoce_compiler.finetune.distributed.launch import launched
    from sottovoce_compiler.finetune.pipeline import finetune
    from sottovoce_compiler.finetune.trainer.errors import InterruptedTraining
    from sottovoce_compiler.finetune.trainer.progress import shown, unseen
    from sottovoce_compiler.sources.files import say

    with launched() as launch:
        main = launch.world.is_main
        try:
            done = finetune(request, shown if main else unseen, say if main else _nothing, launch)
        except InterruptedTraining as stopped:
            if main:
                say(f"{stopped}; go on with:\n  {_resume_command(request)}")
            return INTERRUPTED
    if not main:
        return 0
    for warning in done.proof.warnings:
        print(f"sottovoce: warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(done.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(done, request)
    return 0


def _nothing(text: str) -> None:
    """One process of several speaks for all."""


def _explain(request: "Request", as_json: bool) -> int:
    from sottovoce_compiler.finetune.explain import explain_run
    from sottovoce_compiler.finetune.pipeline import prepare_request
    from sottovoce_compiler.finetune.trainer.world import Alone
    from sottovoce_compiler.report.table import show
    from sottovoce_compiler.sources.files import say

    prepared, found, _ = prepare_request(request, say, Alone())
    told = explain_run(prepared, done=0 if found is None else found.position.step)
    if as_json:
        print(json.dumps(told.to_json(), indent=2, ensure_ascii=False))
    else:
        show([*prepared.data.tables(), told.table()], sys.stdout)
    return 0


def _print(done: "Finetuned", request: "Request") -> None:
    """What came of it, and what to do with it."""
    from sottovoce.cli.progress import clock
    from sottovoce_compiler.finetune.trainer.progress import show_measure
    from sottovoce_compiler.report.table import Table, show

    outcome, task, settings = done.outcome, done.prepared.task, done.prepared.settings
    rows = [("loss", "loss")] + ([] if task.measure == "loss" else [(task.measure, "measure")])
    if outcome.first is not None and outcome.best is not None:
        cells = [
            (name.replace("_", " "), *(show_measure(name, getattr(one, at)).rpartition(" ")[2] for one in found))
            for name, at in rows
            for found in [(outcome.first, outcome.best)]
        ]
        count = f"{outcome.best.examples} examples of the evaluation split"
        show([Table(f"on {count}", ("", "before", "after"), tuple(cells))], sys.stdout)
        print()
    position = outcome.position
    early = " (patience ended it)" if outcome.stopped_early else ""
    print(
        f"{position.step} steps{early} of about {position.tokens // max(1, position.step):,} tokens in "
        f"{clock(position.seconds)}: {position.tokens:,} tokens seen, {position.labelled:,} learned from"
    )
    print(f"{done.adapter}: {settings.method} of rank {settings.rank}, {done.trainable:,} parameters", end="")
    print(f", those after step {outcome.best_step}" if outcome.best is not None else "")
    source, adapter = shlex.quote(request.source), shlex.quote(str(request.output))
    print(f"\nnext: sottovoce compile {source} --adapter {adapter} --target TARGET -o {Path(adapter).name}.svb")


def _resume_command(request: "Request") -> str:
    return f"sottovoce finetune {shlex.quote(request.source)} -o {shlex.quote(str(request.output))} --resume"


def _add(group: Any, name: str, kind: type, default: Any, option: Option) -> None:
    flag = f"--{name.replace('_', '-')}"
    shown = "" if default is None or kind is bool else " (default: %(const)s)".replace("%(const)s", str(default))
    text = f"{option.help}{shown}"
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif option.choices:
        group.add_argument(flag, choices=option.choices, help=text)
    else:
        metavar = option.metavar or {int: "N", float: "X", str: "FILE" if "data" in name else "TEXT"}[kind]
        group.add_argument(flag, type=_TYPES[kind], metavar=metavar, help=text)


def _chosen(args: argparse.Namespace) -> Mapping[str, Any]:
    """The options that were given, by name; a marker's \\n and \\t are a line's end and a tabulator."""
    found = {name: value for name in options() if (value := getattr(args, name)) is not None}
    if "answer_marker" in found:
        found["answer_marker"] = unescaped(found["answer_marker"])
    return found
