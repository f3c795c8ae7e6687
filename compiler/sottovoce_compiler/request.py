"""What a compile is asked for and what comes of it, whatever the model is; and what every manifest says alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from sottovoce_compiler.report.gate import Verdict
from sottovoce_compiler.report.questions import Questions
from sottovoce_compiler.report.table import Table
from sottovoce_compiler.report.texts import TextSet
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_targets import Target

# In their order; a stage that a model or a request does not have is left out.
STAGES = (
    *("resolve", "lower", "pack", "measure source", "measure artifact", "gate"),
    *("measure stream", "compare formats", "seal"),
)
_OLDEST_RUNTIME = "0.1.0"

Progress = Callable[[str, float], None]  # a stage's name and how much of it is done, 0 to 1


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile, for what, to where, and what it may lose.

    `limits` are asked for beside the target's, by name. `precision` None is the target's for the model's task.
    `eval` is what to measure on: recordings for speech, text for language models; None is the task's built-in set.
    `format` (language models) None is the target's.
    """

    source: str
    target: Target
    output: Path
    limits: Mapping[str, float] = field(default_factory=dict)
    precision: str | None = None
    format: str | None = None
    eval: Path | None = None
    adapter: Path | None = None  # a LoRA adapter, PEFT's folder, that is merged into the weights
    answers: Questions | None = None  # to be answered word for word by source and bundle (language models)
    calibrate: bool = True  # weigh columns by how strongly they are driven, where a precision searches
    calibration: TextSet | None = None  # on this text; None: on random tokens
    compare_formats: bool = False  # language models: measure the other format beside it, for the report
    beside: Path | None = None  # another bundle, for which there shall be memory too
    timings: bool = False  # record how fast it is here, which no two compiles measure alike


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bundle in its place, with what it says of itself."""

    bundle: Path
    bytes: int
    report: Mapping[str, Any]
    gate: Verdict
    tables: tuple[Table, ...] = ()  # what else is to be shown

    @classmethod
    def at(cls, bundle: Path, report: Mapping[str, Any], gate: Verdict, tables: tuple[Table, ...] = ()) -> Self:
        """The bundle that has just been written to `bundle`, a file or a folder."""
        files = [bundle] if bundle.is_file() else [file for file in bundle.rglob("*") if file.is_file()]
        return cls(bundle, sum(file.stat().st_size for file in files), report, gate, tables)


def common_fields(request: Request, checkpoint: Checkpoint, precision: str) -> dict[str, Any]:
    """The part of the manifest that does not depend on the model's task."""
    target = request.target.to_json()
    return {
        "requires": {"runtime": _OLDEST_RUNTIME},
        "name": checkpoint.name,
        "precision": precision,
        "source": {
            # A folder's path says nothing to others, and may say too much.
            "spec": checkpoint.name if Path(checkpoint.spec).expanduser().exists() else checkpoint.spec,
            "revision": checkpoint.revision,
            "licence": checkpoint.licence,
            "sha256": dict(checkpoint.sha256),
        },
        "target": {key: target[key] for key in ("name", "arch", "os", "cores", "memory_mb", "instructions")},
    }
