"""`sottovoce evaluate`: the error rates of a bundle, or of a source at full precision, on labelled audio; for a bundle
also what its stream is worth. Language models are measured on text (`evaluate_text`).
"""

import argparse
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sottovoce.errors import InputError
from sottovoce_compiler.commands.stages import progress_bar
from sottovoce_compiler.families import SPEECH, family_of
from sottovoce_compiler.report.dataset import Dataset, read_manifest
from sottovoce_compiler.report.evaluate import Evaluation, evaluate
from sottovoce_compiler.report.gate import scores_rows
from sottovoce_compiler.report.table import Table, show
from sottovoce_compiler.sources.checkpoint import Checkpoint

if TYPE_CHECKING:
    from sottovoce_compiler.report.stream import StreamScorecard

EXAMPLE = """\
  sottovoce evaluate whisper-base.svb --data test.jsonl    a bundle on your own recordings
  sottovoce evaluate whisper-base                          a source, on the small built-in set
  sottovoce evaluate whisper-base.svb --stream --plot words.png --set hold_back=0.3    a bundle's stream
  sottovoce evaluate smollm2.svb --data notes.txt          a language model, against its source
  sottovoce evaluate model.gguf --against ./original       any GGUF file, against what it was made from

  One line of test.jsonl, for speech (for language models: {"text": "..."}):
  {"file": "talk.wav", "text": "what is said", "language": "en", "seconds": 3.2}"""

BUNDLE_SUFFIX = ".svb"
TERMINAL = "-"  # in place of a file: draw there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument("model", metavar="BUNDLE|SOURCE", help="what to measure")
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="for speech a manifest of recordings (.jsonl), for language models text (.txt, or .jsonl of "
        '{"text": ...}); default: a small built-in set of English',
    )
    parser.add_argument(
        "--against",
        metavar="SOURCE|none",
        help="what to compare a packed language model with (default: the source that its bundle names, where it is "
        "at hand)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    stream = parser.add_argument_group(
        "streaming", "The clips are played as if they were spoken now; the time that this machine takes is charged."
    )
    stream.add_argument("--stream", action="store_true", help="measure the stream of a bundle too")
    stream.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting of the stream in place of the bundle's own, such as step=0.5; may be repeated",
    )
    stream.add_argument("--threads", metavar="N", type=int, help="threads of the stream (default: up to 4)")
    stream.add_argument(
        "--plot",
        metavar="FILE.png",
        action="append",
        default=[],
        help="draw words on a time line, spoken against committed; - draws in the terminal",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the error rates, then the scorecard of the stream; 1 where a clip could not be transcribed. Of a language
    model what `run_text` does."""
    from sottovoce_compiler.lowerings.formats import evaluators

    with evaluators():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from sottovoce_compiler.commands.evaluate_text import is_artifact, run_text

    if is_artifact(args.model):
        return run_text(args)
    _check(args)
    checkpoint = None if is_bundle(args.model) else _resolved(args.model)
    if checkpoint is not None and family_of(checkpoint.config, checkpoint.name) not in SPEECH:
        return run_text(args, checkpoint)
    if args.against is not None:
        raise InputError(f"--against is for language models, and {args.model} is for speech")
    dataset = _dataset(args.data)
    # The stream first: its peak of memory is told by what the process has ever had.
    card = _stream(args, dataset) if args.stream else None
    with progress_bar("transcribing", len(dataset.clips)) as progress:
        evaluation = _evaluate(args.model, checkpoint, dataset, progress)
    if args.json:
        streamed = {} if card is None else {"stream": card.to_json()}
        print(json.dumps(evaluation.to_json() | streamed, indent=2, ensure_ascii=False))
    else:
        heads = ("stratum", "clips", "errors", "language")
        title = f"{args.model} on {evaluation.dataset}"
        tables = [] if card is None else card.tables()
        show([Table(title, heads, tuple(scores_rows(evaluation))), *tables], sys.stdout)
    if card is not None:
        _plot(args, card)
    failures = dict.fromkeys([*evaluation.failures, *(() if card is None else card.failures)])
    for failure in failures:
        print(f"sottovoce: {failure.clip.name}: {failure.error}", file=sys.stderr)
    return 1 if failures else 0


def is_bundle(model: str) -> bool:
    """Whether the argument means a bundle: by its name, or by what lies there."""
    path = Path(model)
    if path.is_dir():
        return (path / "manifest.json").is_file()
    return path.suffix == BUNDLE_SUFFIX or (path.is_file() and zipfile.is_zipfile(path))


def _check(args: argparse.Namespace) -> None:
    """Raises InputError for options that do not go together, before anything slow is done."""
    for option in ("set", "threads", "plot"):
        if getattr(args, option) and not args.stream:
            raise InputError(f"--{option} is about the stream; add --stream")
    if args.stream and not is_bundle(args.model):
        raise InputError(f"--stream measures a bundle, and {args.model} is a source; make one with: sottovoce compile")
    if args.stream and (made_for := _evaluated_engine(args.model)) is not None:
        raise InputError(
            f"--stream: {args.model} is made for {made_for}, and what stands in for it here takes seconds a step"
        )
    for place in args.plot:
        path = Path(place)
        if place != TERMINAL and (path.suffix.lower() != ".png" or not path.parent.is_dir()):
            raise InputError(f"--plot {place}: expected NAME.png in a folder that exists, or - for the terminal")


def _evaluated_engine(model: str) -> str | None:
    """The engine of a bundle that an evaluator stands in for on this host; None where none does, and for a bundle that
    cannot be opened, of which whoever measures it says why."""
    from sottovoce.bundle import open_bundle
    from sottovoce.engines.stand_in import stand_in_for
    from sottovoce.errors import BundleError

    try:
        name = open_bundle(model).manifest.engine.name
    except BundleError:
        return None
    return None if stand_in_for(name) is None else name


def _stream(args: argparse.Namespace, dataset: Dataset) -> "StreamScorecard":
    from sottovoce_compiler.report.stream_run import evaluate_stream, settings_from

    settings = settings_from(args.set)
    _must_exist(args.model)
    with progress_bar("streaming", len(dataset.clips)) as progress:
        return evaluate_stream(args.model, dataset, settings, args.threads, progress=progress)


def _plot(args: argparse.Namespace, card: "StreamScorecard") -> None:
    from sottovoce_compiler.report.timeline import draw, strip

    out = sys.stderr if args.json else sys.stdout
    for place in args.plot:
        if place == TERMINAL:
            print("", *strip(card, shutil.get_terminal_size().columns), sep="\n", file=out)
        else:
            draw(card, Path(args.model).name, Path(place))


def _dataset(manifest: str | None) -> Dataset:
    if manifest is not None:
        return read_manifest(manifest)
    from sottovoce_compiler.report.builtin import builtin_set

    return builtin_set()


def _resolved(source: str) -> Checkpoint:
    from sottovoce_compiler.sources import resolve

    return resolve(source)


def _evaluate(
    model: str, checkpoint: Checkpoint | None, dataset: Dataset, progress: Callable[[float], None]
) -> Evaluation:
    """The source `checkpoint`, or the bundle `model` where there is none."""
    if checkpoint is None:
        _must_exist(model)
        from sottovoce_compiler.report.artifact import bundle_transcriber

        return evaluate(bundle_transcriber(model), dataset, progress)
    from sottovoce_compiler.report.source import evaluate_source

    return evaluate_source(checkpoint, dataset, progress)


def _must_exist(bundle: str) -> None:
    if not Path(bundle).exists():
        raise InputError(f"there is no bundle {bundle}; make one with: sottovoce compile")
