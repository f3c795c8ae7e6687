"""Runs a conversion in a process of its own, with a limit on its memory, and tells how far it is."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from sottovoce.errors import MissingExtraError, SottovoceError
from sottovoce_compiler.lowerings.coreml.job import Job, Load, bytes_of, write_job

PROGRESS, FAILED, MISSING, MEMORY = "progress ", "failed ", "missing ", "memory"
# Beside the interpreter and its libraries: a matrix at a time is quantized, the package's weights are held once.
_BASE_MB, _TIMES = 2048, 3
_TAIL = 2000  # characters of what the worker said last


class ConversionError(SottovoceError, RuntimeError):
    """coremltools could not make the package; the message says why, as far as it told."""


def convert(
    job: Job,
    names: Iterable[str],
    load: Load,
    work: Path,
    progress: Callable[[float], None],
    limit_mb: int | None = None,
) -> Path:
    """The folder, new in `work`, of the packages that `job` makes of the weights `names`.

    Raises ConversionError where it fails or needs more memory than `limit_mb` (None: from the model's size),
    MissingExtraError without coremltools.
    """
    folder = Path(tempfile.mkdtemp(prefix="coreml-", dir=work))
    write_job(folder, job, names, load)
    allowed = limit_mb or _BASE_MB + _TIMES * (bytes_of(folder) >> 20)
    _run(
        [sys.executable, "-m", "sottovoce_compiler.lowerings.coreml.worker", str(folder), str(allowed)],
        allowed,
        progress,
    )
    return folder / "packages"


def _run(command: list[str], allowed: int, progress: Callable[[float], None]) -> None:
    failure = ""
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise, stdin=subprocess.DEVNULL, text=True)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(PROGRESS):
                    progress(float(line.removeprefix(PROGRESS)))
                elif line.startswith((FAILED, MISSING, MEMORY)):
                    failure = line.strip()
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code == 0 and not failure:
            return
        if failure.startswith(MISSING):
            raise MissingExtraError(failure.removeprefix(MISSING))
        if failure == MEMORY or code < 0:
            ended = f"was ended by signal {-code}" if code < 0 else "ran out of memory"
            raise ConversionError(f"the conversion to Core ML {ended}; it may use {allowed} MB: choose a smaller model")
        noise.seek(0)
        said = failure.removeprefix(FAILED) or noise.read()[-_TAIL:].decode("utf-8", "replace").strip()
        raise ConversionError(
            f"the conversion to Core ML failed: {said.splitlines()[-1] if said else f'exit code {code}'}"
        )
