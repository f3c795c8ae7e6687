"""How fast a bundle is on this machine, and how much memory it takes: measured in a process of its own.

Knows the operating system's memory counters and what a measurement says; the clocks are in `bench_speech` and
`bench_chat`. A fresh process, because the memory and the warm caches of the caller would otherwise be measured along.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sottovoce.errors import EngineError, InputError, SottovoceError

PACKAGES = ("sottovoce", "onnxruntime", "numpy")
MEGABYTE = 1e6  # bytes


@dataclass(frozen=True)
class BenchResult:
    """Seconds are wall time; `peak_mb` is 10^6 bytes above the imports, None where that cannot be told.

    `rtf` and `audio_s` are None for chat, the tokens a second for speech.
    """

    load_s: float  # Transcriber(...) or Chat(...) and load(), in a process that has imported everything
    first_s: float  # from the end of load() to the first segment, or token, of the first run
    rtf: float | None  # median over the runs: seconds of work a second of audio
    peak_mb: float | None
    bytes: int  # of the bundle on disk
    audio_s: float | None
    runs_s: tuple[float, ...]
    threads: int | None
    machine: Mapping[str, Any]
    tokens_per_s: float | None = None  # medians over the runs
    prompt_tokens_per_s: float | None = None
    engine: str | None = None  # of a chat, with its version
    process_mb: float | None = None  # the peak of the whole process, Python and imports among it


def measure(
    path: str | Path,
    audio: str | Path | None = None,
    runs: int = 3,
    threads: int | None = None,
    *,
    brief: bool = False,
) -> BenchResult:
    """Measures the bundle at `path` in a new process: speech on `audio` or on the recording that the bundle carries,
    chat (also of a plain GGUF file) on a text of our own, which `brief` makes shorter.

    Raises InputError or EngineError with the message of whatever went wrong there.
    """
    job = (str(path), None if audio is None else str(audio), runs, threads, brief)
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


def measure_here(path: str, audio: str | None, runs: int, threads: int | None, brief: bool = False) -> BenchResult:
    """The measurement itself, in this process."""
    if _chats(path):
        from sottovoce import bench_chat

        if audio is not None:
            raise InputError(f"{path} is a chat model: --audio is for speech")
        return bench_chat.measure_here(path, runs, threads, bench_chat.BRIEF if brief else bench_chat.USUAL)
    from sottovoce import bench_speech

    return bench_speech.measure_here(path, audio, runs, threads)


def machine_facts() -> dict[str, Any]:
    """What a figure is worth nothing without: processor, cores, system and versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _installed(name) for name in PACKAGES},
    }


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


def megabytes_since(before: int | None) -> float | None:
    """How far the peak has risen above `before`, which `peak_bytes` gave; 0 gives all of it."""
    after = peak_bytes()
    return None if before is None or after is None else round((after - before) / MEGABYTE, 1)


def _chats(path: str) -> bool:
    from sottovoce.bundle import open_bundle
    from sottovoce.chat.loading import is_gguf

    return is_gguf(Path(path)) or open_bundle(path).manifest.task == "chat"


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
