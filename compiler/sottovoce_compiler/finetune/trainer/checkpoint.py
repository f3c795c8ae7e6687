"""A run on disk: one file, whole or not at all, from which training goes on as if it had never stopped.

Holds what is trained, the best of it so far, the optimizer, where in the data it is, and every generator of random
numbers of each process. Bit for bit on a CPU; on a GPU as far as its kernels repeat themselves.
"""

import io
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sottovoce.errors import SottovoceError
from sottovoce_compiler.finetune.trainer.errors import CheckpointError
from sottovoce_compiler.staging import staged_file

FILE = "checkpoint.pt"
VERSION = 1


@dataclass(slots=True)
class Position:
    """Where a run is, and what was best until there. `step` are optimizer steps done in all, `step_in_epoch` those of
    `epoch` (0 is the first); `tokens` went through the model, `labelled` were learned from."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    tokens: int = 0
    labelled: int = 0
    seconds: float = 0.0
    last_loss: float = float("nan")
    evaluated: int = -1  # the step after which the measure was last taken
    first: dict[str, Any] | None = None  # metrics before the first step
    best: dict[str, Any] | None = None  # metrics at `best_step`
    best_step: int = 0
    since_best: int = 0  # evaluations


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is in the file. `run` says which run it is of: it goes on with the same values alone."""

    run: Mapping[str, Any]
    position: Position
    parameters: Mapping[str, torch.Tensor]
    best: Mapping[str, torch.Tensor] | None
    strategy: Mapping[str, Any]
    random: list[dict[str, Any]] = field(default_factory=list)  # by rank


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the file in `folder`, which is made. SottovoceError where it cannot be; the one before then stays."""
    values = {one: getattr(checkpoint, one) for one in ("run", "parameters", "best", "strategy", "random")}
    buffer = io.BytesIO()  # a write that fails halfway shows as a fault of the disk, not of a serializer
    torch.save({"version": VERSION, "position": asdict(checkpoint.position), **values}, buffer)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staged_file(folder / FILE) as file:
            file.write(buffer.getbuffer())
    except OSError as error:
        raise SottovoceError(
            f"no checkpoint could be written to {folder}: {error.strerror or error}; the one before it is kept"
        ) from error


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; nothing in the file is run. Raises CheckpointError where there is none that is
    whole."""
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"nothing to resume in {folder.parent}: there is no {path}")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        version = values.pop("version")
        if version != VERSION:
            raise CheckpointError(f"{path} is of version {version}; this release resumes version {VERSION}")
        return Checkpoint(**{**values, "position": Position(**values["position"])})
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, EOFError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}); start anew without --resume") from error
    except Exception as error:  # an unpickler's own, whose class torch does not promise
        raise CheckpointError(f"{path} is no checkpoint ({type(error).__name__}); start anew") from error


def check_run(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises CheckpointError naming the first value in which the run of a checkpoint differs from the one asked for."""
    for key in [*wanted, *found]:
        if found.get(key) != wanted.get(key):
            raise CheckpointError(
                f"the checkpoint was made with {key} = {found.get(key)!r:.80}, now it is {wanted.get(key)!r:.80}; "
                "resume with the same, or start anew in another folder"
            )


def random_state() -> dict[str, Any]:
    """Every global generator of this process, as values that `torch.load` takes back without running anything."""
    version, python, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(python), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(place), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Puts back what `random_state` gave."""
    version, python, gauss = state["python"]
    random.setstate((version, tuple(python), gauss))
    kind, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_all(seed: int) -> None:
    """Every global generator of this process, from one number."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
