"""How fast a bundle is on this machine, and how much memory it takes: measured in a process of its own.

Knows clocks and the operating system's memory counters. Knows nothing of how the work is done: it calls a
Transcriber as a user would. A fresh process, because the memory and the warm caches of the caller would
otherwise be measured along.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from sottovoce.errors import EngineError, InputError, SottovoceError

GOLDEN_AUDIO = "golden/case-0.wav"
PACKAGES = ("sottovoce", "onnxruntime", "numpy")
MEGABYTE = 1e6  # bytes


@dataclass(frozen=True)
class BenchResult:
    """Seconds are wall time; `peak_mb` is 10^6 bytes above the imports, None where that cannot be told."""

    load_s: float  # Transcriber(...) and load(), in a process that has imported everything
    first_s: float  # from the end of load() to the first segment of the first run
    rtf: float  # median over the runs: seconds of work a second of audio
    peak_mb: float | None
    bytes: int  # of the bundle on disk
    audio_s: float
    runs_s: tuple[float, ...]
    threads: int | None
    machine: Mapping[str, Any]
    tokens_per_s: float | None = None  # these two are for chat
    prompt_tokens_per_s: float | None = None


def measure(
    path: str | Path, audio: str | Path | None = None, runs: int = 3, threads: int | None = None
) -> BenchResult:
    """Measures the bundle at `path` in a new process, on `audio` or on the recording that the bundle carries.

    Raises InputError or EngineError with the message of whatever went wrong there.
    """
    job = (str(path), None if audio is None else str(audio), runs, threads)
    command = [sys.executable, "-m", "sottovoce.bench", json.dumps(job)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise EngineError(f"the measuring process ended early: {_reason(done)}") from None
    if "error" in answer:
        raise (InputError if answer["exit_code"] == 2 else EngineError)(answer["error"])
    return BenchResult(**answer | {"runs_s": tuple(answer["runs_s"])})


def machine_facts() -> dict[str, Any]:
    """What a figure is worth nothing without: processor, cores, system and versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _installed(name) for name in PACKAGES},
    }


def measure_here(path: str, audio: str | None, runs: int, threads: int | None) -> BenchResult:
    """The measurement itself, in this process."""
    import onnxruntime  # noqa: F401  # imports are not what is measured

    import sottovoce
    from sottovoce.audio import SAMPLE_RATE, load_audio
    from sottovoce.bundle import open_bundle

    bundle = open_bundle(path)
    make = sottovoce.Transcriber
    before = peak_bytes()
    started = time.perf_counter()
    transcriber = make(path, threads=threads)
    transcriber.load()
    load_s = time.perf_counter() - started
    try:
        samples = load_audio(bundle.read(GOLDEN_AUDIO) if audio is None else audio)
        timed = [_timed_run(transcriber, samples) for _ in range(runs + 1)]
    finally:
        transcriber.close()
    after = peak_bytes()
    audio_s = len(samples) / SAMPLE_RATE
    runs_s = tuple(round(total, 4) for _, total in timed[1:])
    return BenchResult(
        load_s=round(load_s, 4),
        first_s=round(timed[0][0], 4),
        rtf=round(median(runs_s) / audio_s, 5),
        peak_mb=None if before is None or after is None else round((after - before) / MEGABYTE, 1),
        bytes=bundle.size,
        audio_s=round(audio_s, 3),
        runs_s=runs_s,
        threads=threads,
        machine=machine_facts(),
    )


def peak_bytes() -> int | None:
    """The most memory this process has had so far, or None where that cannot be asked."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _timed_run(transcriber: Any, samples: Any) -> tuple[float, float]:
    """Seconds to the first segment (to the end, when there is none) and in all."""
    started = time.perf_counter()
    first: float | None = None
    segments, _ = transcriber.transcribe(samples)
    for _ in segments:
        first = first or time.perf_counter() - started
    total = time.perf_counter() - started
    return first or total, total


def _cpu_model() -> str:
    for file, key in (("/proc/device-tree/model", None), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(file).read_text("utf-8", "replace").strip("\0\n ")
        except OSError:
            continue
        if key is None:
            return text
        for line in text.splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}{' (out of memory?)' if done.returncode == -9 else ''}"
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return f"exit code {done.returncode}, {last[0]}"


def _main(text: str) -> None:
    try:
        answer = asdict(measure_here(*json.loads(text)))
    except SottovoceError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main(sys.argv[1])
