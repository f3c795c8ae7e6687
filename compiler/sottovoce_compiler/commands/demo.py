"""`sottovoce demo`: from a model's name to words on the screen, and what each step came to.

Knows the order of the steps and how to show them. Each step is what a command of its own does: compile, verify,
transcribe, bench.
"""

import argparse
import json
import shutil
import sys
import tempfile
import wave
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import sottovoce
from sottovoce.bench import BenchResult, machine_facts, measure
from sottovoce.cli import DONE, FAILED
from sottovoce.cli.progress import clock
from sottovoce.errors import InputError
from sottovoce.golden import verify
from sottovoce.types import Segment
from sottovoce_compiler.commands.stages import stage_progress
from sottovoce_compiler.native import native_target
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.dataset import Clip
from sottovoce_compiler.report.evaluate import Evaluation
from sottovoce_compiler.report.gate import GateError, GateResult
from sottovoce_compiler.report.table import Table, show
from sottovoce_compiler.request import Compiled, Request
from sottovoce_targets import Target, load_target

EXAMPLE = """\
  sottovoce demo
  sottovoce demo --model whisper-base --keep demo"""

MODEL = "whisper-tiny.en"
RECORDING = "two-cities"  # its clips in the built-in set, joined again, are the recording that they were cut from
RUNS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the last table is made of."""

    compiled: Compiled
    gate: GateResult
    precision: str
    checks: int
    transcript: str
    bench: BenchResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument("--model", metavar="SOURCE", default=MODEL, help=f"what to compile (default: {MODEL})")
    parser.add_argument("--target", metavar="TARGET", help="what to compile for (default: the one this machine is)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="leave the bundle and the recording there")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table and the text")


def run(args: argparse.Namespace) -> int:
    """Runs the steps; 1 where the gate or the check of the finished bundle does not hold."""
    target = load_target(args.target) if args.target else native_target()
    out = sys.stderr if args.json else sys.stdout
    with _folder(args.keep) as folder:
        try:
            outcome = _steps(args.model, target, folder, out)
        except GateError as error:
            show(error.result.tables(), sys.stderr)
            raise
        if outcome is None:
            return FAILED
        if args.json:
            print(json.dumps(_to_json(outcome), indent=2, ensure_ascii=False))
        else:
            _heading("What it came to", sys.stdout)
            show([_table(outcome)], sys.stdout)
            print(f"\n{_conditions(outcome)}\n{_next_steps(args.keep, outcome)}")
    return DONE


def _steps(model: str, target: Target, folder: Path, out: TextIO) -> Outcome | None:
    """Compile, verify, transcribe, measure. None where the bundle does not verify."""
    _heading(f"1  Compile {model} for {target.name}: {target.description}, {target.precision} weights", out)
    bundle = folder / f"{_file_name(model)}.svb"
    with stage_progress() as progress:
        compiled = compile_model(Request(model, target, bundle), progress)
    if not isinstance(compiled.gate, GateResult):
        raise InputError(f"{model} is not a speech model, which the demo needs; try: sottovoce compile, sottovoce chat")
    print(f"{bundle.name}: {compiled.bytes / 1e6:.1f} MB, the gate holds", file=out)

    _heading("2  Verify: checksums, compatibility, golden cases", out)
    found = verify(bundle)
    for line in found.failures or found.checks:
        print(f"{'FAILED' if found.failures else 'ok'}  {line}", file=out)
    if found.failures:
        return None

    clips = [clip for clip in builtin_set().clips if clip.name.startswith(RECORDING)]
    recording = join(clips, folder / f"{RECORDING}.wav")
    _heading(f"3  Transcribe {recording.name}: the opening of A Tale of Two Cities", out)
    with closing(sottovoce.Transcriber(bundle)) as transcriber:
        # A piece at a time: several at once are faster, but their text comes at once too.
        segments, _ = transcriber.transcribe(recording, batch_size=1)
        transcript = " ".join(_shown(segments, out))

    _heading("4  Measure, in a process of its own", out)
    measured = measure(bundle, recording, RUNS)
    print(f"{RUNS} runs of {measured.audio_s:.0f} s of audio", file=out)
    return Outcome(compiled, compiled.gate, target.precision, len(found.checks), transcript, measured)


def join(clips: Iterable[Clip], path: Path) -> Path:
    """The WAV files of `clips`, all of one rate, one after the other in a WAV file at `path`."""
    with wave.open(str(path), "wb") as target:
        for number, clip in enumerate(clips):
            with wave.open(str(clip.file), "rb") as source:
                if number == 0:
                    target.setparams(source.getparams())
                target.writeframes(source.readframes(source.getnframes()))
    return path


def _shown(segments: Iterable[Segment], out: TextIO) -> Iterator[str]:
    for segment in segments:
        print(f"{clock(segment.start):>5}  {segment.text.strip()}", file=out, flush=True)
        yield segment.text.strip()


def _table(outcome: Outcome) -> Table:
    bench, gate = outcome.bench, outcome.gate
    assert bench.rtf is not None, "speech has one"
    rows = [
        ("bundle", f"{outcome.compiled.bytes / 1e6:.1f} MB"),
        ("load", f"{bench.load_s * 1000:.0f} ms"),
        ("speed", f"{1 / bench.rtf:.0f} times real time"),
        ("peak memory", "unknown here" if bench.peak_mb is None else f"{bench.peak_mb:.0f} MB above the imports"),
        ("word errors, source (fp32)", _errors(gate.source)),
        (f"word errors, bundle ({outcome.precision})", _errors(gate.artifact)),
        ("invented words, source", _invented(gate.source)),
        ("invented words, bundle", _invented(gate.artifact)),
    ]
    return Table("", ("figure", "value"), tuple(rows))


def _errors(evaluation: Evaluation) -> str:
    words = evaluation.scores.words
    return f"{words.rate or 0:.1%} ({words.errors} of {words.reference} words)"


def _invented(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    return f"{scores.invented} in {scores.silent_minutes * 60:.0f} s of silence and noise"


def _to_json(outcome: Outcome) -> dict[str, Any]:
    bench, gate = outcome.bench, outcome.gate
    return {
        "bytes": outcome.compiled.bytes,
        "load_s": bench.load_s,
        "first_s": bench.first_s,
        "rtf": bench.rtf,
        "peak_mb": bench.peak_mb,
        "verified": True,
        "transcript": outcome.transcript,
        "source": gate.source.to_json(),
        "artifact": gate.artifact.to_json(),
        "machine": machine_facts(),
    }


def _conditions(outcome: Outcome) -> str:
    facts = outcome.bench.machine
    versions = ", ".join(f"{name} {facts[name]}" for name in ("sottovoce", "onnxruntime", "numpy"))
    machine = f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}; {versions}"
    return f"Words: {outcome.gate.source.dataset}. Times: {machine}"


def _next_steps(keep: Path | None, outcome: Outcome) -> str:
    if keep is None:
        return "Nothing was left behind; `sottovoce demo --keep DIR` leaves the bundle and the recording."
    bundle = keep / outcome.compiled.bundle.name
    return f"Try: sottovoce transcribe {bundle} {keep / RECORDING}.wav --words --format srt"


def _file_name(model: str) -> str:
    name = model.rstrip("/").rpartition("/")[2]
    return "".join(char if char.isalnum() or char in ".-_" else "-" for char in name).lstrip(".-") or "model"


def _heading(text: str, out: TextIO) -> None:
    """Bold on a terminal; an empty line before it anywhere."""
    before, after = ("\x1b[1m", "\x1b[0m") if out.isatty() else ("", "")
    print(f"\n{before}{text}{after}", file=out, flush=True)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        work = Path(tempfile.mkdtemp(prefix="sottovoce-demo-"))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return
    if keep.exists() and not keep.is_dir():
        raise InputError(f"--keep {keep}: a file, and a folder is needed")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep
