"""One run of a tiny language model in as many processes as torchrun started, once a preset.

Run as a script; the first process writes what came of each to a file:
    torchrun --nproc-per-node 2 processes.py MODEL RESULT.json PRESET...
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from sottovoce_compiler.families import language_model
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.distributed.launch import launched
from sottovoce_compiler.finetune.model.adapted import Lora, attach_all, merge_difference
from sottovoce_compiler.finetune.model.decoder import Decoder
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.tasks.chat import ChatTask
from sottovoce_compiler.finetune.trainer import checkpoint as saved
from sottovoce_compiler.finetune.trainer.errors import InterruptedTraining
from sottovoce_compiler.finetune.trainer.loop import Job, train
from sottovoce_compiler.finetune.trainer.stop import Stop
from sottovoce_compiler.finetune.trainer.strategy import Launch
from sottovoce_compiler.finetune.trainer.watch import EvaluationReport, StepReport
from sottovoce_compiler.sources import resolve

STEPS = 6
BATCHES = 4  # of a step, over all processes


class Record:
    """What a run told; it asks for a stop after a step."""

    def __init__(self, stop: Stop, stop_after: int | None) -> None:
        self.stop, self.stop_after = stop, stop_after
        self.steps: list[StepReport] = []
        self.evaluations: list[EvaluationReport] = []

    def stage(self, name: str, total: float) -> None: ...

    def part(self, done: float) -> None: ...

    def step(self, report: StepReport) -> None:
        self.steps.append(report)
        if report.step == self.stop_after:
            self.stop.ask()

    def evaluation(self, report: EvaluationReport) -> None:
        self.evaluations.append(report)

    def note(self, text: str) -> None: ...


def examples(count: int, seed: int) -> list[Example]:
    """Of different lengths, so that what each process learns from differs."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for line in range(count):
        length = int(torch.randint(5, 40, (), generator=generator))
        ids = torch.randint(3, 260, (length,), generator=generator)
        learned = torch.arange(length) >= length // 3
        found.append(Example(ids.numpy(), learned.numpy(), line + 1))
    return found


def run(model: Path, preset: str, launch: Launch, folder: Path, stop_after: int | None = None) -> dict[str, Any]:
    """From the checkpoint in `folder`, where there is one, to the end or to where it is stopped."""
    settings = Settings(
        **{"data": "-", "steps": STEPS, "learning_rate": 0.01, "dtype": "float32", "parallel": preset, "epochs": 1},
        **{"accumulation": BATCHES // launch.world.size, "batch_tokens": 64, "weight_decay": 0.1, "clip": 0.5},
    ).completed("text", "cpu")
    decoder = Decoder(language_model(resolve(str(model))))
    attach_all(dict(decoder.linears()), Lora(rank=4, alpha=8))
    task = ChatTask(examples(60, 1), examples(9, 2), None, None, settings, True, "case")  # type: ignore[arg-type]
    stop = Stop()
    record = Record(stop, stop_after)
    job = Job(task, launch.wrap(decoder, settings), settings, folder, {}, launch.world, record, stop)
    try:
        outcome = train(job, saved.load(folder) if (folder / saved.FILE).exists() else None)
    except InterruptedTraining:
        return {}
    assert outcome.best is not None
    values = {name: layer.lora_b for name, layer in decoder.linears().items() if layer.lora_b is not None}
    return {
        "losses": [one.loss for one in record.steps],
        "norms": [one.norm for one in record.steps],
        "evaluation": outcome.best.loss,
        "b": {name: value.detach().flatten()[:8].tolist() for name, value in values.items()},
        "merged_apart": merge_difference(decoder.linears()).relative,
    }


def all_of(model: Path, presets: list[str], launch: Launch) -> Mapping[str, Any]:
    """Each preset at once, and stopped after half of its steps and resumed."""
    found: dict[str, Any] = {}
    for preset in presets:
        folder = Path(launch.world.gather(mkdtemp())[0])
        found[preset] = run(model, preset, launch, folder)
        folder = Path(launch.world.gather(mkdtemp())[0])
        run(model, preset, launch, folder, stop_after=STEPS // 2)
        found[f"{preset} resumed"] = run(model, preset, launch, folder)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with launched() as launch:
        results = all_of(Path(sys.argv[1]), sys.argv[3:], launch)
        if launch.world.is_main:
            Path(sys.argv[2]).write_text(json.dumps(results))
