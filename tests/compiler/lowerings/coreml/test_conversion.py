"""The conversion in a process of its own: it tells how far it is, and its failures are one line."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.families.whisper_tensors import expected_tensors
from sottovoce_compiler.lowerings.coreml import conversion
from sottovoce_compiler.lowerings.coreml.conversion import ConversionError, convert
from sottovoce_compiler.lowerings.coreml.job import Job
from sottovoce_compiler.lowerings.coreml.precision import deployment
from sottovoce_compiler.lowerings.coreml.worker import out_of_memory
from sottovoce_compiler.sources import Checkpoint

from ...coreml_case import ABOUT, speech_packages
from ...whisper_case import checkpoint_of, random_model

JOB = Job(None, dict.fromkeys(("encoder", "decoder", "head"), "int8"), "iOS17", ABOUT)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return checkpoint_of(random_model())


def run(checkpoint: Checkpoint, work: Path, told: list[float], limit_mb: int | None = None, factor: float = 1) -> Path:
    spec = whisper_spec(checkpoint)
    names = [name for name, _ in expected_tensors(spec)]
    return convert(
        replace(JOB, spec=spec),
        names,
        lambda name: checkpoint.tensors.load(name) * np.float32(factor),
        work,
        told.append,
        limit_mb,
    )


def test_it_makes_what_is_made_here_and_tells_how_far_it_is(checkpoint: Checkpoint, tmp_path: Path) -> None:
    told: list[float] = []
    made = run(checkpoint, tmp_path, told)
    here = speech_packages(checkpoint, whisper_spec(checkpoint), "int8", tmp_path / "here")
    files = sorted(file.relative_to(here) for file in here.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(made) for file in made.rglob("*") if file.is_file())
    assert all((here / name).read_bytes() == (made / name).read_bytes() for name in files)
    assert told == sorted(told)
    assert len(told) == 3


def test_weights_that_no_float16_holds_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"failed: .* beyond the 65504 of float16"):
        run(checkpoint, tmp_path, [], factor=1e7)


def test_it_has_no_more_memory_than_it_may(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="may use 60 MB"):
        run(checkpoint, tmp_path, [], limit_mb=60)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (ImportError("/lib/mmap.so: failed to map segment from shared object"), True),
        (ImportError("/lib/a.so: cannot allocate memory in static TLS block"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ImportError("cannot import name 'x'"), False),
    ],
)
def test_a_library_that_finds_no_room_is_a_lack_of_memory(error: ImportError | OSError, memory: bool) -> None:
    assert out_of_memory(error) == memory


def test_what_the_process_said_last_is_the_reason(tmp_path: Path) -> None:
    import sys

    with pytest.raises(ConversionError, match="failed: ZeroDivisionError: division by zero"):
        conversion._run([sys.executable, "-c", "1 / 0"], 100, lambda done: None)


@pytest.mark.parametrize(
    ("precisions", "system"), [(("fp16", "int8"), "iOS17"), (("pal6",), "iOS17"), (("fp16", "int4"), "iOS18")]
)
def test_a_package_needs_the_system_that_its_precisions_need(precisions: tuple[str, ...], system: str) -> None:
    assert deployment(*precisions) == system
    assert deployment(*precisions, stateful=True) == "iOS18"
