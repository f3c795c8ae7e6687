"""What one system costs beside its speed: import time, load time, memory above imports; in fresh processes.

Run as a script it is that process: it takes one JSON argument and prints one JSON object. Linux only (/proc).
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peers import Artifacts, create


@dataclass(frozen=True, slots=True)
class Footprint:
    """Medians over fresh processes. Memory in MB (1e6 bytes) above what imported libraries alone hold."""

    import_s: float
    load_s: float
    first_s: float
    loaded_mb: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Job:
    """What the fresh process does: build, load, and transcribe one recording in English."""

    system: str
    artifacts: Artifacts
    threads: int
    audio: Path

    def to_argument(self) -> str:
        """The job as one command line argument."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_argument(cls, text: str) -> "Job":
        """Inverse of `to_argument`."""
        fields = json.loads(text)
        return cls(fields["system"], Artifacts.from_json(fields["artifacts"]), fields["threads"], Path(fields["audio"]))


def measure(jobs: Mapping[str, Job], repetitions: int) -> dict[str, Footprint]:
    """Medians for each job, jobs taking turns; an uncounted first round fills the page cache."""
    runs: dict[str, list[Footprint]] = {name: [] for name in jobs}
    for repetition in range(repetitions + 1):
        for name, job in jobs.items():
            found = _in_fresh_process(job)
            if repetition:
                runs[name].append(found)
    return {name: _median(found) for name, found in runs.items()}


def _in_fresh_process(job: Job) -> Footprint:
    command = [sys.executable, __file__, job.to_argument()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job.system} failed in a fresh process: {done.stderr.strip().splitlines()[-1:]}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def _median(runs: Sequence[Footprint]) -> Footprint:
    table = [asdict(run) for run in runs]
    return Footprint(**{key: statistics.median(run[key] for run in table) for key in table[0]})


def run(job: Job) -> Footprint:
    """Do the job in this process, which should have done nothing before."""
    from data import load  # the audio library counts as an import, whichever system is measured

    samples = load(job.audio)
    began = time.perf_counter()
    system = create(job.system, job.artifacts, job.threads)
    imported = time.perf_counter()
    forget_peak()
    before_kb = status_kb("VmRSS")
    loading = time.perf_counter()
    system.load()
    loaded = time.perf_counter()
    loaded_kb = status_kb("VmRSS")
    system.transcribe(samples, "en")
    ended = time.perf_counter()
    peak_kb = status_kb("VmHWM")
    memory = [(kb - before_kb) * 1024 / 1e6 for kb in (loaded_kb, peak_kb)]
    return Footprint(imported - began, loaded - loading, ended - loaded, *memory)


def forget_peak() -> None:
    """Start the peak anew where the kernel allows: importing may have peaked above what it kept."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def status_kb(field: str) -> int:
    """Kilobytes of this process, by the name that /proc/self/status has for it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field} on this kernel")


def bytes_on_disk(path: Path) -> int:
    """Size of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    print(json.dumps(asdict(run(Job.from_argument(sys.argv[1])))))
