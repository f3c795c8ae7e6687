"""A run as lines of JSON, one a step and one an evaluation, for whoever draws or compares it later.

On resume, lines of steps after the checkpoint's are taken out: they will be written again.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sottovoce.errors import SottovoceError
from sottovoce_compiler.finetune.trainer.watch import EvaluationReport, StepReport, metrics_json
from sottovoce_compiler.staging import staged_file

FILE = "log.jsonl"


class Log:
    """A `Watcher` that appends to the file in `folder`; each line is there when the call returns."""

    def __init__(self, folder: Path, measure: str, after: int = 0) -> None:
        """Keeps what is there of steps up to `after`. SottovoceError where the file cannot be written."""
        self._path, self._measure = folder / FILE, measure
        folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(folder) if line.get("step", 0) <= after] if after else []
        with staged_file(self._path) as file:
            file.write("".join(map(_line, kept)).encode())

    def stage(self, name: str, total: float) -> None:
        """Not logged."""

    def part(self, done: float) -> None:
        """Not logged."""

    def step(self, report: StepReport) -> None:
        """A line of everything in the report."""
        self._write({"event": "step", **asdict(report)})

    def evaluation(self, report: EvaluationReport) -> None:
        """A line of the metrics."""
        found = metrics_json(report.metrics, self._measure)
        self._write(
            {"event": "evaluation", "step": report.step, "best": report.best, "seconds": report.seconds, **found}
        )

    def note(self, text: str) -> None:
        """A line of text."""
        self._write({"event": "note", "text": text})

    def _write(self, values: Mapping[str, Any]) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(_line(values).encode())
        except OSError as error:
            raise SottovoceError(f"{self._path} cannot be written: {error.strerror}; the checkpoint is kept") from error


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines in `folder`'s log, in order; a last one that was cut off is left out."""
    path = folder / FILE
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _line(values: Mapping[str, Any]) -> str:
    finite = {key: None if isinstance(one, float) and not math.isfinite(one) else one for key, one in values.items()}
    return json.dumps(finite, ensure_ascii=False) + "\n"
