"""`sottovoce evaluate`: the error rates of a bundle, or of a source at full precision, on labelled audio."""

import argparse
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sottovoce.errors import InputError
from sottovoce_compiler.report.dataset import Dataset, read_manifest
from sottovoce_compiler.report.evaluate import Evaluation, evaluate
from sottovoce_compiler.report.gate import scores_rows
from sottovoce_compiler.report.table import Table, show

EXAMPLE = """\
  sottovoce evaluate whisper-base.svb --data test.jsonl    a bundle on your own recordings
  sottovoce evaluate whisper-base                          a source, on the small built-in set

  One line of test.jsonl:
  {"file": "talk.wav", "text": "what is said", "language": "en", "seconds": 3.2}"""

BUNDLE_SUFFIX = ".svb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument("model", metavar="BUNDLE|SOURCE", help="what to measure")
    parser.add_argument(
        "--data",
        metavar="MANIFEST.jsonl",
        help="recordings and what is said in them (default: a built-in set of about 80 s of English)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints the error rates; 1 where a clip could not be transcribed."""
    dataset = _dataset(args.data)
    with _progress(len(dataset.clips)) as progress:
        evaluation = _evaluate(args.model, dataset, progress)
    if args.json:
        print(json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False))
    else:
        heads = ("stratum", "clips", "errors", "language")
        title = f"{args.model} on {evaluation.dataset}"
        show([Table(title, heads, tuple(scores_rows(evaluation)))], sys.stdout)
    for failure in evaluation.failures:
        print(f"sottovoce: {failure.clip.name}: {failure.error}", file=sys.stderr)
    return 1 if evaluation.failures else 0


def is_bundle(model: str) -> bool:
    """Whether the argument means a bundle: by its name, or by what lies there."""
    path = Path(model)
    if path.is_dir():
        return (path / "manifest.json").is_file()
    return path.suffix == BUNDLE_SUFFIX or (path.is_file() and zipfile.is_zipfile(path))


def _dataset(manifest: str | None) -> Dataset:
    if manifest is not None:
        return read_manifest(manifest)
    from sottovoce_compiler.report.builtin import builtin_set

    return builtin_set()


def _evaluate(model: str, dataset: Dataset, progress: Callable[[int], None]) -> Evaluation:
    if is_bundle(model):
        if not Path(model).exists():
            raise InputError(f"there is no bundle {model}; make one with: sottovoce compile")
        from sottovoce_compiler.report.artifact import bundle_transcriber

        return evaluate(bundle_transcriber(model), dataset, progress)
    from sottovoce_compiler.report.source import evaluate_source
    from sottovoce_compiler.sources import resolve

    return evaluate_source(resolve(model), dataset, progress)


@contextmanager
def _progress(clips: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda finished: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("transcribing", total=clips)
        yield lambda finished: bar.update(task, completed=finished)
