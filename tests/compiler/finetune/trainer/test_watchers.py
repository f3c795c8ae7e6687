"""What a run shows and writes while it goes on."""

import io
import json
import math
import struct
from pathlib import Path

import pytest

from sottovoce.errors import InputError, SottovoceError
from sottovoce_compiler.finetune.trainer import checkpoint as saved
from sottovoce_compiler.finetune.trainer.curve import Course, draw, smooth
from sottovoce_compiler.finetune.trainer.errors import InterruptedTraining
from sottovoce_compiler.finetune.trainer.log import FILE, Log, read_log
from sottovoce_compiler.finetune.trainer.loop import train
from sottovoce_compiler.finetune.trainer.progress import LINES, shown
from sottovoce_compiler.finetune.trainer.task import Metrics
from sottovoce_compiler.finetune.trainer.watch import (
    EvaluationReport,
    StepReport,
    Watchers,
    metrics_json,
    metrics_of,
)

from .fake_task import Record, job


def step(number: int, steps: int = 100, loss: float = 2.0) -> StepReport:
    return StepReport(number, steps, 0, loss, 1.0, 1e-3, 500, 100, 0.5, 1_500_000_000)


def evaluation(number: int, measure: float = 0.25) -> EvaluationReport:
    return EvaluationReport(number, Metrics(1.5, 1000, measure, 80), number > 0, 3.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_run_prints_few_lines_with_everything_that_matters() -> None:
    out = io.StringIO()
    with shown("exact_match", out) as watcher:
        watcher.stage("evaluate", 1)
        watcher.evaluation(evaluation(0))
        watcher.stage("train", 1000)
        for number in range(1, 1001):
            watcher.step(step(number, 1000))
        watcher.evaluation(evaluation(1000, 0.5))
    lines = out.getvalue().splitlines()
    assert len(lines) <= LINES + 5 and all(line.startswith("sottovoce: ") for line in lines)
    assert "before training: loss 1.5000, exact match 25.0% of 80 (0:03)" in lines[1]
    assert "step 40 of 1000, loss 2.000, 1,000 tokens/s, 1.5 GB, 8:00 left" in out.getvalue()
    assert lines[-1].endswith("after step 1000: loss 1.5000, exact match 50.0% of 80 (0:03), the best so far")


def test_a_terminal_gets_a_bar_and_the_evaluations_above_it() -> None:
    out = Terminal()
    with shown("loss", out) as watcher:
        watcher.stage("evaluate", 1)
        watcher.part(0.5)
        watcher.evaluation(evaluation(0))
        watcher.stage("train", 100)
        watcher.step(step(50))
        watcher.stage("evaluate", 1)
        watcher.evaluation(evaluation(50))
        watcher.note("a note")
    text = out.getvalue()
    assert "50/100" in text and "1,000 tokens/s" in text and "left" in text
    assert "after step 50: loss 1.5000" in text and "a note" in text


def test_the_log_has_a_line_for_every_step_and_evaluation(tmp_path: Path) -> None:
    made = job(tmp_path)
    log = Log(tmp_path / "log", "accuracy")
    object.__setattr__(made, "watcher", Watchers([log]))
    train(made)
    lines = list(read_log(tmp_path / "log"))
    steps = [line for line in lines if line["event"] == "step"]
    found = [line for line in lines if line["event"] == "evaluation"]
    assert [line["step"] for line in steps] == list(range(1, 25))
    assert [line["step"] for line in found] == [0, 6, 12, 18, 24]
    assert {"loss", "accuracy", "examples", "best"} <= found[0].keys()
    assert {"loss", "norm", "rate", "tokens", "labelled", "seconds", "memory", "epoch"} <= steps[0].keys()


def test_a_resumed_log_is_that_of_a_run_that_never_stopped(tmp_path: Path) -> None:
    def run(folder: Path, stop_after: int | None, resume: bool) -> None:
        record = Record(stop_after=stop_after)
        made = job(folder, record=record)
        found = saved.load(folder) if resume else None
        log = Log(folder / "log", "accuracy", after=found.position.step if found else 0)
        object.__setattr__(made, "watcher", Watchers([record, log]))
        train(made, found)

    run(tmp_path / "whole", None, False)
    with pytest.raises(InterruptedTraining):
        run(tmp_path / "part", 7, False)
    path = tmp_path / "part" / "log" / FILE
    with path.open("a") as file:  # steps after the checkpoint, which a killed run had written, the last one cut off
        file.write(json.dumps({"event": "step", "step": 8, "loss": 99.0}) + '\n{"event": "st')
    run(tmp_path / "part", None, True)

    def told(folder: Path) -> list[tuple[object, ...]]:
        return [(line["event"], line["step"], line["loss"]) for line in read_log(folder / "log")]

    assert told(tmp_path / "part") == told(tmp_path / "whole")


def test_a_loss_that_is_no_number_is_null_in_the_log(tmp_path: Path) -> None:
    log = Log(tmp_path, "loss")
    log.step(step(1, loss=math.nan))
    log.note("a note")
    text = (tmp_path / FILE).read_text()
    assert json.loads(text.splitlines()[0])["loss"] is None and "NaN" not in text


def test_a_log_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    log = Log(tmp_path, "loss")
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(SottovoceError, match=r"log\.jsonl cannot be written"):
        log.step(step(1))


def test_metrics_come_back_from_json() -> None:
    for measure in ("loss", "wer"):
        metrics = Metrics(1.25, 10, 1.25 if measure == "loss" else 0.5, 7, {"errors": 3})
        assert metrics_of(json.loads(json.dumps(metrics_json(metrics, measure))), measure) == metrics


def test_the_curve_is_a_picture_of_what_the_log_says(tmp_path: Path) -> None:
    lines = [{"event": "step", "step": number, "loss": 3 / number} for number in range(1, 40)]
    lines += [
        {"event": "evaluation", "step": number, "loss": 2.0, "exact_match": 0.1, "best": number == 20}
        for number in (0, 20, 39)
    ]
    course = Course.of(lines, "exact_match")
    assert (course.kept, len(course.train), course.own) == (20, 39, [(0, 0.1), (20, 0.1), (39, 0.1)])
    for one in (course, Course.of(lines[:39], "loss"), Course.of(lines[:1], "loss"), Course.of(lines, "loss")):
        draw(one, "a model on some data", tmp_path / "curve.png")
        head = (tmp_path / "curve.png").read_bytes()[:24]
        assert head.startswith(b"\x89PNG") and struct.unpack(">II", head[16:]) == (1400, 784)


def test_a_curve_of_nothing_or_to_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        Course.of([{"event": "note"}], "loss")
    course = Course.of([{"event": "step", "step": 1, "loss": 1.0}], "loss")
    with pytest.raises(InputError, match="cannot write"):
        draw(course, "x", tmp_path / "no" / "x.png")


def test_the_mean_that_is_drawn_begins_at_the_first_value_and_follows() -> None:
    found = smooth([(step, 1.0 if step < 50 else 3.0) for step in range(100)], 5)
    assert found[0] == (0, 1.0) and found[49][1] == pytest.approx(1.0) and found[99][1] == pytest.approx(3.0, abs=1e-3)
