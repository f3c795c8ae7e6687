"""The file that a run goes on from."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sottovoce_compiler.finetune.trainer import checkpoint as saved
from sottovoce_compiler.finetune.trainer.checkpoint import Checkpoint, Position
from sottovoce_compiler.finetune.trainer.errors import CheckpointError


def made() -> Checkpoint:
    position = Position(step=3, epoch=1, best={"loss": 0.5, "name": "x"}, seconds=1.25)
    return Checkpoint({"data": "d"}, position, {"a": torch.ones(2)}, None, {"scale": 2.0}, [saved.random_state()])


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved.save(tmp_path / "run", made())
    found = saved.load(tmp_path / "run")
    assert found.position.step == 3 and found.position.best == {"loss": 0.5, "name": "x"}
    assert found.run == {"data": "d"} and torch.equal(found.parameters["a"], torch.ones(2))
    assert [item.name for item in (tmp_path / "run").iterdir()] == [saved.FILE]


def test_every_generator_goes_on_where_it_was() -> None:
    def draw() -> tuple[object, ...]:
        return torch.rand(3).tolist(), np.random.rand(), np.random.randn(), random.random(), random.gauss(0, 1)

    saved.seed_all(4)
    draw()
    state = saved.random_state()
    first = draw()
    draw()
    saved.set_random_state(state)
    assert draw() == first
    saved.seed_all(4)
    draw()
    assert draw() == first


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (Path("/tmp/should-not-exist-by-a-checkpoint"),)  # type: ignore[return-value]


@pytest.mark.parametrize("how", ["cut", "empty", "text", "pickle", "other keys"])
def test_a_damaged_file_is_refused_in_one_line(how: str, tmp_path: Path) -> None:
    saved.save(tmp_path, made())
    path = tmp_path / saved.FILE
    whole = path.read_bytes()
    if how == "other keys":
        torch.save({"version": saved.VERSION, "position": {"steps": 1}}, path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(_Runs(), protocol=2))
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello" * 100}[how])
    with pytest.raises(CheckpointError) as caught:
        saved.load(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("/tmp/should-not-exist-by-a-checkpoint").exists()


def test_a_file_of_a_later_version_says_so(tmp_path: Path) -> None:
    torch.save({"version": 99}, tmp_path / saved.FILE)
    with pytest.raises(CheckpointError, match="version 99"):
        saved.load(tmp_path)


def test_nothing_to_resume_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        saved.load(tmp_path / "adapter" / "training")


def test_a_writer_that_was_killed_leaves_the_file_before_it(tmp_path: Path) -> None:
    saved.save(tmp_path, made())
    before = (tmp_path / saved.FILE).read_bytes()
    import os
    import subprocess
    import sys

    script = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.compiler.finetune.trainer.test_checkpoint import made\n"
        "from sottovoce_compiler.finetune.trainer import checkpoint as saved\n"
        "os.fsync = lambda descriptor: os._exit(9)\nsaved.save(Path(sys.argv[1]), made())\n"
    )
    root = Path(__file__).parents[4]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, cwd=root, check=False)
    assert done.returncode == 9
    assert (tmp_path / saved.FILE).read_bytes() == before
    saved.save(tmp_path, made())
    assert [item.name for item in tmp_path.iterdir()] == [saved.FILE], "the next writer sweeps what was left"
