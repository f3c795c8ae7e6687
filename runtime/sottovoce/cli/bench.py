"""`sottovoce bench`: how fast a bundle is on this machine.

Knows how to print the figures; bench.py of the package measures them.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from sottovoce.bench import BenchResult, measure
from sottovoce.cli import DONE
from sottovoce.errors import InputError

EXAMPLE = """\
  sottovoce bench whisper-base.svb
  sottovoce bench whisper-base.svb --audio talk.wav --threads 4 --json
  sottovoce bench smollm2.gguf
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="a .svb file, a bundle's folder, or a .gguf file")
    parser.add_argument("--audio", metavar="FILE", type=Path, help="recording for speech (default: the bundle's own)")
    parser.add_argument("--runs", metavar="N", type=int, default=3, help="timed runs after the first (default: 3)")
    parser.add_argument("--threads", metavar="N", type=int, help="processor threads (default: what suits this machine)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measures and prints; what goes wrong is raised."""
    for name in ("runs", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: a whole number from 1 up is needed")
    if not args.bundle.exists():
        raise InputError(f"{args.bundle}: no such bundle")
    result = measure(args.bundle, args.audio, args.runs, args.threads)
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print("\n".join(_table(result)))
    return DONE


def _table(result: BenchResult) -> Iterator[str]:
    facts = result.machine
    engine = result.engine or f"onnxruntime {facts['onnxruntime']}"
    yield f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, {engine}"
    runs = f"{len(result.runs_s)} run{'s' * (len(result.runs_s) != 1)}"
    threads = "" if result.threads is None else f", {result.threads} thread{'s' * (result.threads != 1)}"
    yield f"{runs} {'of a chat' if result.audio_s is None else f'on {result.audio_s:.1f} s of audio'}{threads}"
    yield ""
    yield f"load           {result.load_s * 1000:8.0f} ms"
    yield f"first result   {result.first_s * 1000:8.0f} ms   after loading, in a fresh process"
    if result.rtf is not None:
        yield f"speed          {1 / max(result.rtf, 1e-9):8.1f} x    real time (factor {result.rtf:.3f})"
    if result.prompt_tokens_per_s is not None:
        yield f"prompt         {result.prompt_tokens_per_s:8.1f} tokens/s"
    if result.tokens_per_s is not None:
        yield f"answer         {result.tokens_per_s:8.1f} tokens/s"
    if result.peak_mb is not None:
        yield f"peak memory    {result.peak_mb:8.0f} MB   above imports"
    yield f"size on disk   {result.bytes / 1e6:8.1f} MB"
