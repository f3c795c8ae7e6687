"""Two processes learn what one learns, however they hold the model, and go on where they were stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.distributed.launch import launched, processes_asked
from sottovoce_compiler.finetune.distributed.presets import Decision, decide

from ...causal_case import config_of, random_model, save
from . import processes

PRESETS = ("ddp", "fsdp2", "zero2", "zero3")
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return save(random_model(config_of("llama")), folder / "model")


def torchrun(*command: str, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine, on a port that is free."""
    torch_run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(torch_run, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def one(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with launched() as launch:
        return processes.run(model, "auto", launch, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(model: Path, folder: Path) -> Any:
    done = torchrun(processes.__file__, str(model), str(folder / "result.json"), *PRESETS)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("preset", PRESETS)
def test_the_losses_of_two_processes_are_those_of_one(preset: str, one: Any, two: Any) -> None:
    found = two[preset]
    assert found["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert found["norms"] == pytest.approx(one["norms"], rel=1e-4)
    assert found["evaluation"] == pytest.approx(one["evaluation"], rel=1e-5)
    assert len(set(one["losses"])) == processes.STEPS and max(one["norms"]) > 1
    for name, values in one["b"].items():
        assert found["b"][name] == pytest.approx(values, rel=0.02, abs=2e-4), name
    assert found["merged_apart"] < 1e-5, "the model is whole again when training has ended"


@pytest.mark.parametrize("preset", PRESETS)
def test_two_processes_go_on_bit_for_bit_where_they_were_stopped(preset: str, two: Any) -> None:
    whole, resumed = two[preset], two[f"{preset} resumed"]
    assert resumed["losses"] == whole["losses"][processes.STEPS // 2 :]
    assert resumed["b"] == whole["b"] and resumed["evaluation"] == whole["evaluation"]


def test_the_command_trains_in_the_processes_that_torchrun_started(model: Path, folder: Path) -> None:
    lines = [{"prompt": f"{number} and 1 is ", "completion": str(number + 1)} for number in range(40)]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["-m", "sottovoce", "finetune", str(model), "--data", str(folder / "data.jsonl")]
    options = ["--steps", "3", "--batch-tokens", "64", "--dtype", "float32", "--parallel", "fsdp2", "--json"]
    done = torchrun(*command, "-o", str(folder / "adapter"), *options)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["steps"] == 3 and (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert done.stderr.count("2 processes, fsdp2: as asked for") == 1


GB = 10**9


@pytest.mark.parametrize(
    ("asked", "weights", "memory", "deepspeed", "expected"),
    [
        ("auto", 1 * GB, 8 * GB, True, ("ddp", False)),
        ("auto", 6 * GB, 8 * GB, True, ("fsdp2", False)),
        ("auto", 20 * GB, 8 * GB, True, ("zero3", True)),
        ("auto", 20 * GB, 8 * GB, False, ("fsdp2", False)),
        ("auto", 20 * GB, None, True, ("ddp", False)),
        ("zero2", 20 * GB, 8 * GB, True, ("zero2", False)),
        ("zero3", 6 * GB, 8 * GB, True, ("zero3", False)),
        ("zero3", 20 * GB, 8 * GB, True, ("zero3", True)),
    ],
)
def test_a_preset_is_chosen_by_what_fits(
    asked: str, weights: int, memory: int | None, deepspeed: bool, expected: tuple[str, bool]
) -> None:
    found = decide(asked, weights, memory, 2, has_deepspeed=deepspeed)
    assert isinstance(found, Decision) and (found.preset, found.offload) == expected and found.reason


def test_an_environment_that_contradicts_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert processes_asked() == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE is 2 but RANK is not set; start it with torchrun"):
        processes_asked()
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(InputError, match="WORLD_SIZE = 'many'"):
        processes_asked()
