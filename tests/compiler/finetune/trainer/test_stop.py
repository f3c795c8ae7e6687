"""Signals: the first finishes the step and saves, the second ends at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sottovoce_compiler.finetune.trainer import checkpoint as saved
from sottovoce_compiler.finetune.trainer.errors import InterruptedTraining
from sottovoce_compiler.finetune.trainer.loop import train
from sottovoce_compiler.finetune.trainer.stop import ONE, Stop, listening

from .fake_task import PointsTask, Record, job

ROOT = Path(__file__).parents[4]


def run_until_ready(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.compiler.finetune.trainer.fake_task", str(folder), "1000000", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_step_that_runs(number: signal.Signals, tmp_path: Path) -> None:
    process = run_until_ready(tmp_path, 0.001)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"{number.name}: finishing this step" in out and "everything is saved" in out
    found = saved.load(tmp_path).position
    assert f"after step {found.step} of 1000000" in out


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    process = run_until_ready(tmp_path, 600.0)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and "finishing" in process.stdout.readline()
    time.sleep(1.5 * ONE)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode not in (0, 130)


def test_two_signals_at_once_are_one_and_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with listening(Stop()) as stop:
        assert signal.getsignal(signal.SIGINT) == stop.handle
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGTERM)  # what `timeout` does: the process, then its group
        monkeypatch.setattr("sottovoce_compiler.finetune.trainer.stop.ONE", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1.0)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_stop_during_an_evaluation_does_not_wait_for_it(tmp_path: Path) -> None:
    task = PointsTask()
    made = job(tmp_path, task)
    made.stop.ask()
    with pytest.raises(InterruptedTraining, match="after step 0"):
        train(made)
    assert task.evaluations == 0
    again = Record()
    outcome = train(job(tmp_path, record=again), saved.load(tmp_path))
    assert outcome.first is not None and again.evaluations[0].step == 0
