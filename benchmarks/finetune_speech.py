"""Word errors before and after fine-tuning a Whisper on a few minutes of recordings, on folds that were not trained on.

    python benchmarks/finetune_speech.py whisper-tiny.en --data speech/manifest.jsonl --kind prompts-finetune
    python benchmarks/finetune_speech.py whisper-base --data speech/manifest.jsonl --kind prompts-finetune --seed 2

Each fold is one run of `sottovoce finetune` on the others, without an evaluation split: its last step is taken, nothing
is chosen by what it is then measured on. The adapter is read back from disk. Recordings of --general are measured with
every fold's adapter, to see what was lost. Choose settings on the folds of one --seed, and report those of another.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import machine
import torch

from sottovoce_compiler.finetune.data.speech import LONGEST
from sottovoce_compiler.finetune.pipeline import Finetuned, Request, finetune
from sottovoce_compiler.finetune.preparation import Prepared, load_model
from sottovoce_compiler.finetune.settings import from_values, read_config
from sottovoce_compiler.finetune.tasks.speech import SpeechTask
from sottovoce_compiler.finetune.trainer.watch import Watcher, Watchers
from sottovoce_compiler.report.score import ErrorCounts, total
from sottovoce_compiler.sources.peft import open_adapter

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fold:
    """Word errors on what one adapter was not trained on: of the base, and with it."""

    held: tuple[ErrorCounts, ErrorCounts]
    general: tuple[ErrorCounts, ErrorCounts]
    seconds: float  # of training, all stages


def main(arguments: Sequence[str]) -> int:
    """Prints the table and writes the result where --output says."""
    plan = _parser().parse_args(arguments)
    lines, described = _lines(plan.data), machine.describe()
    ours = [line for line in lines if line["kind"] in plan.kind]
    general = [line for line in lines if line["kind"] in plan.general]
    found: list[Fold] = []
    for number, held in enumerate(folds(len(ours), plan.folds, plan.seed)):
        if plan.only and number not in plan.only:
            continue
        with tempfile.TemporaryDirectory() as work:
            learned = [line for at, line in enumerate(ours) if at not in held]
            found.append(_fold(plan, Path(work), learned, [ours[at] for at in held], general))
        print(f"fold {number}: {_shown(found[-1])}", file=sys.stderr, flush=True)
    result = {
        "command": machine.command_line("benchmarks/finetune_speech.py", arguments),
        "date": machine.today(),
        "machine": described,
        "folds": [_json(fold) for fold in found],
    }
    table = _table(plan.model, found)
    print(table)
    if plan.output:
        plan.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        plan.output.with_suffix(".md").write_text(_page(result, plan, table))
    return 0


def folds(count: int, number: int, seed: int) -> list[list[int]]:
    """Indices below `count` in `number` parts that differ by one at most, drawn by `seed`."""
    order = list(range(count))
    random.Random(f"folds {seed}").shuffle(order)
    return [order[start::number] for start in range(number)]


def _fold(plan: argparse.Namespace, work: Path, learned: list[Line], held: list[Line], general: list[Line]) -> Fold:
    train, other = _write(work / "train.jsonl", learned), _write(work / "held.jsonl", [*held, *general])
    values = {**(read_config(plan.config) if plan.config else {}), "data": str(train), "eval_fraction": 0.0}
    overrides = from_values(values, "the command line").to_json()
    done = finetune(Request(plan.model, work / "adapter", overrides), _unwatched)
    model = load_model(replace(done.prepared, begun_with=open_adapter(done.adapter))).eval()
    measured = _measured(done, plan.model, other)
    task = measured.task
    assert isinstance(task, SpeechTask)
    with torch.no_grad():
        adapted = task.errors(model, task.evaluation, lambda share: None)
        for layer in model.linears().values():
            layer.detach()
        base = task.errors(model, task.evaluation, lambda share: None)
    at = len(held)
    return Fold((total(base[:at]), total(adapted[:at])), (total(base[at:]), total(adapted[at:])), done.seconds)


def _measured(done: Finetuned, model: str, data: Path) -> Prepared:
    """A run on other data, which is never begun: its task measures."""
    from sottovoce_compiler.finetune.preparation import prepare
    from sottovoce_compiler.sources import resolve

    settings = replace(done.prepared.settings, eval_data=str(data), measure="wer")
    return prepare(resolve(model), settings)


@contextmanager
def _unwatched(measure: str) -> Iterator[Watcher]:
    yield Watchers([])


def _lines(manifest: Path) -> list[Line]:
    """Spoken English that is heard in one piece, with files by their whole paths."""
    found = [json.loads(line) for line in manifest.read_text().splitlines() if line.strip()]
    return [
        {**line, "file": str((manifest.parent / line["file"]).resolve())}
        for line in found
        if line.get("language") == "en" and line["seconds"] < LONGEST and line.get("text")
    ]


def _write(file: Path, lines: Sequence[Line]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def _table(model: str, found: Sequence[Fold]) -> str:
    rows = [f"| {model} | base | adapted |", "|---|---|---|"]
    for name, pairs in (("held-out folds", [f.held for f in found]), ("general", [f.general for f in found])):
        base, adapted = total([pair[0] for pair in pairs]), total([pair[1] for pair in pairs])
        rows.append(f"| {name}, of {base.reference} words | {base.errors} | {adapted.errors} |")
    return "\n".join([*rows, f"| seconds of a run, mean | | {sum(f.seconds for f in found) / len(found):.0f} |"])


def _page(result: Mapping[str, Any], plan: argparse.Namespace, table: str) -> str:
    """The result for reading."""
    about = result["machine"]
    settings = "" if plan.config is None else f"Settings:\n\n```toml\n{plan.config.read_text().strip()}\n```\n\n"
    rows = [
        f"| {number} | {held['base']} | {held['adapted']} | {held['words']} | {other['base']} | {other['adapted']} "
        f"| {other['words']} |\n"
        for number, (held, other) in enumerate((one["held"], one["general"]) for one in result["folds"])
    ]
    return (
        f"# A few minutes of speech, learned\n\n{about['cpu']} (family/model {about['cpu_family_model']}), "
        f"{about['cores']} cores; {about['system']}, Python {about['python']}; torch {torch.__version__}; "
        f"{result['date']}.\n\n    {result['command']}\n\n{settings}Word errors of {len(rows)} folds, each measured "
        "with an adapter that was trained on the others; what was not learned at all (general) with each of them.\n\n"
        f"{table}\n\n| fold | base | adapted | of words | general, base | adapted | of words |\n"
        f"|---|---|---|---|---|---|---|\n{''.join(rows)}"
    )


def _shown(fold: Fold) -> str:
    (before, after), (general_before, general_after) = fold.held, fold.general
    return (
        f"{before.errors} to {after.errors} of {after.reference} words, general {general_before.errors} to "
        f"{general_after.errors} of {general_after.reference}, {fold.seconds:.0f} s"
    )


def _json(fold: Fold) -> dict[str, Any]:
    return {
        "held": {"words": fold.held[0].reference, "base": fold.held[0].errors, "adapted": fold.held[1].errors},
        "general": {
            "words": fold.general[0].reference,
            "base": fold.general[0].errors,
            "adapted": fold.general[1].errors,
        },
        "seconds": round(fold.seconds, 1),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="a source, as `sottovoce finetune` takes it")
    parser.add_argument("--data", type=Path, required=True, help="manifest with kinds of clips")
    parser.add_argument("--kind", nargs="+", required=True, help="kinds to learn, in folds")
    parser.add_argument("--general", nargs="*", default=["read", "speech"], help="kinds that must not become worse")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of folds, from 0")
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    parser.add_argument("--config", type=Path, help="settings, as `sottovoce finetune --config` takes them")
    parser.add_argument("--output", type=Path, help="files for the result, .json and .md")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
