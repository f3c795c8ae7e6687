"""What a conversion is asked for: the job and the weights, as files that the worker process reads.

Imports nothing large, so that the worker's memory is its own.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.families.whisper import WhisperSpec

Float = NDArray[np.float32]
Load = Callable[[str], Float]
_JOB, _WEIGHTS = "job.pickle", "weights.f32"


@dataclass(frozen=True, slots=True)
class Job:
    """`precision` by part ("encoder", "decoder", "head" for speech; "layers" for chat); `block` values share a scale
    where the precision has blocks; `context` (chat) positions."""

    spec: WhisperSpec | CausalSpec
    precision: Mapping[str, str]
    system: str
    about: Mapping[str, str]
    block: int = 32
    context: int = 0
    importance: Mapping[str, Float] | None = None


def write_job(folder: Path, job: Job, names: Iterable[str], load: Load) -> None:
    """Write a job and its weights into `folder`, one weight in memory at a time."""
    places, at = {}, 0
    with (folder / _WEIGHTS).open("wb") as file:
        for name in names:
            values = np.ascontiguousarray(load(name), np.float32)
            places[name] = (at, values.shape)
            at += values.size
            values.tofile(file)
    (folder / _JOB).write_bytes(pickle.dumps((job, places)))


def read_job(folder: Path) -> tuple[Job, Load]:
    """The job in `folder`, written by `write_job` of this same program, and what loads a weight of it."""
    job, places = pickle.loads((folder / _JOB).read_bytes())
    values = np.memmap(folder / _WEIGHTS, np.float32, "r")

    def load(name: str) -> Float:
        at, shape = places[name]
        return np.array(values[at : at + int(np.prod(shape, dtype=np.int64))]).reshape(shape)

    assert isinstance(job, Job)
    return job, load


def bytes_of(folder: Path) -> int:
    """Bytes of the weights in float32."""
    return (folder / _WEIGHTS).stat().st_size
