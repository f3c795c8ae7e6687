"""How little memory a live stream needs: the same audio through one stream, under limits that the kernel enforces.

    sottovoce compile whisper-tiny.en --target raspberry-pi-zero-2w -o tiny.svb
    sudo python benchmarks/small_memory.py --bundle tiny.svb --output benchmarks/results/small-memory

Each run is a process of its own in a control group (memory_limit.py, by root), which is killed where it needs more; one
runs without a limit. Audio comes from a file a piece at a time, so that none but the stream's own is in memory. Run as
a script with --job it is that process. Linux only. Without --audio it hears the built-in set's recordings, one after
the other; a recording in which nobody pauses fills the stream's window, and so its memory.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MB = 1_000_000
RATE = 16_000
PIECE = RATE // 10  # samples that arrive at a time
PAUSE = 2 * RATE  # samples of silence between recordings
LIMITS_MB = (512, 300, 200, 150)
STEP = 1.0  # seconds of audio between two decodings
LOOK_EVERY = 10  # pieces between two looks at what is resident
ZERO_2W_THREADS = 4


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does: stream `audio` (raw float32 at 16 kHz) through `bundle`."""

    bundle: str
    audio: str
    threads: int


@dataclass(frozen=True, slots=True)
class Run:
    """One process. MB are 10^6 bytes; None for a process that was killed.

    `resident_mb` is all that was in memory at the worst moment, mapped files and shared libraries among it (VmHWM);
    `own_mb` of it is no file (RssAnon), seen every second of audio. `counted_mb` is what the control group says.
    """

    limit_mb: int | None
    killed: bool
    resident_mb: float | None = None
    own_mb: float | None = None
    counted_mb: float | None = None
    audio_s: float | None = None
    work_s: float | None = None
    words: int | None = None
    text_sha256: str | None = None


def do(job: Job) -> dict[str, Any]:
    """The job, in this process, which should have done nothing before."""
    import numpy as np

    import sottovoce
    from sottovoce.streaming.events import Committed, Event

    own = 0.0
    texts: list[str] = []
    words = pieces = 0

    def take(events: "Sequence[Event]") -> None:
        nonlocal words
        for event in events:
            if isinstance(event, Committed):
                texts.append(event.text)
                words += len(event.words)

    started = time.perf_counter()
    transcriber = sottovoce.Transcriber(job.bundle, threads=job.threads)
    transcriber.load()
    # A step is never late: all runs hear the same in the same steps. Memory does not depend on how many there are.
    session = transcriber.session(clock=lambda: 0.0, step=STEP)
    with Path(job.audio).open("rb", buffering=0) as file:
        while raw := file.read(4 * PIECE):
            take(list(session.push(np.frombuffer(raw, np.float32))))
            pieces += 1
            if pieces % LOOK_EVERY == 0:
                own = max(own, _status("RssAnon"))
    take(list(session.finish()))
    return {
        "resident_mb": round(_status("VmHWM"), 1),
        "own_mb": round(max(own, _status("RssAnon")), 1),
        "audio_s": round(session.time, 1),
        "work_s": round(time.perf_counter() - started, 1),
        "words": words,
        "text_sha256": hashlib.sha256("".join(texts).encode()).hexdigest(),
    }


def run(job: Job, limit_mb: int | None) -> Run:
    """The job in a process of its own, under a limit. RuntimeError where it fails for another reason than that."""
    from memory_limit import MemoryGroup

    _forget_contents(Path(job.bundle))
    command = [sys.executable, __file__, "--job", json.dumps(asdict(job))]
    # A group without a limit that binds, so that what is counted can be compared.
    with MemoryGroup.make((limit_mb or 64_000) * MB) as group:
        done = subprocess.run(group.inside(command), capture_output=True, text=True, check=False)
        counted, kills = group.peak_bytes() / MB, group.kills()
    if done.returncode:
        if kills or done.returncode in (-9, 137):
            return Run(limit_mb, killed=True, counted_mb=round(counted, 1))
        raise RuntimeError(f"the process ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return Run(limit_mb, killed=False, counted_mb=round(counted, 1), **json.loads(done.stdout.splitlines()[-1]))


def write_audio(files: Sequence[Path], path: Path, seconds: float) -> None:
    """The recordings with pauses after each, as raw float32 (n,) at 16 kHz, up to so many seconds."""
    import numpy as np

    from sottovoce.audio import load_audio

    with path.open("wb") as out:
        for file in files:
            out.write(load_audio(file).tobytes())
            out.write(np.zeros(PAUSE, np.float32).tobytes())
        out.truncate(min(out.tell(), 4 * round(seconds * RATE)))


def table(runs: Sequence[Run], facts: dict[str, Any]) -> str:
    """Markdown."""
    full = runs[0]
    lines = [
        "# A live stream in little memory",
        "",
        f"{facts['model']}, compiled for {facts['target']}, {full.audio_s:.0f} s of audio in one stream, "
        f"{facts['threads']} threads; {facts['machine']['cpu']}, {facts['machine']['cores']} cores, "
        f"Python {facts['machine']['python']}, onnxruntime {facts['onnxruntime']}; {facts['date']}; "
        f"load average {facts['machine']['load_average_before']:.0f}. "
        "Limits are enforced by a control group; a run that needs more is killed. MB are 10^6 bytes.",
        "",
        "| limit, MB | resident at most, MB | of it no file, MB | counted by the group, MB | work, s | words | text |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in runs:
        limit = "none" if one.limit_mb is None else str(one.limit_mb)
        if one.killed:
            counted = "" if one.counted_mb is None else f"{one.counted_mb:.0f}"
            lines.append(f"| {limit} | killed | | {counted} | | | |")
            continue
        same = "the same" if one.text_sha256 == full.text_sha256 else "differs"
        lines.append(
            f"| {limit} | {one.resident_mb:.0f} | {one.own_mb:.0f} | {one.counted_mb:.0f} "
            f"| {one.work_s:.0f} | {one.words} | {same} |"
        )
    return "\n".join([*lines, "", f"    {facts['command']}", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--audio", type=Path, nargs="+", help="recordings (default: the built-in set's)")
    parser.add_argument("--seconds", type=float, default=60, help="how much of them is heard (default: 60)")
    parser.add_argument("--threads", type=int, default=ZERO_2W_THREADS)
    parser.add_argument("--limits-mb", type=int, nargs="+", default=list(LIMITS_MB))
    parser.add_argument("--output", type=Path, help="without the ending: a .json and a .md are written")
    args = parser.parse_args()
    if args.job:
        print(json.dumps(do(Job(**json.loads(args.job)))))
        return
    from importlib.metadata import version

    from machine import command_line, describe, today

    from sottovoce.bundle import open_bundle

    if args.bundle is None or args.output is None:
        parser.error("--bundle and --output are needed")
    manifest = open_bundle(args.bundle).manifest
    facts = {
        "model": manifest.name,
        "target": manifest.target.name,
        "threads": args.threads,
        "machine": describe(),
        "onnxruntime": version("onnxruntime"),
        "date": today(),
        "command": command_line("benchmarks/small_memory.py", sys.argv[1:]),
    }
    with tempfile.TemporaryDirectory() as work:
        audio = Path(work) / "audio.raw"
        write_audio(args.audio or _builtin(), audio, args.seconds)
        job = Job(str(args.bundle.resolve()), str(audio), args.threads)
        runs: list[Run] = []
        for limit in (None, *args.limits_mb):
            runs.append(run(job, limit))
            print(runs[-1], flush=True)
            write(args.output, runs, facts)
    print(table(runs, facts))


def write(output: Path, runs: Sequence[Run], facts: dict[str, Any]) -> None:
    """What was measured so far, as JSON and as Markdown."""
    result = {**facts, "runs": [asdict(one) for one in runs]}
    output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    output.with_suffix(".md").write_text(table(runs, facts))


def _builtin() -> list[Path]:
    from sottovoce_compiler.report.builtin import builtin_set

    return [clip.file for clip in builtin_set().clips if clip.is_speech]


def _forget_contents(path: Path) -> None:
    """What is read of the file is read from the disk again, and so counted where it is read."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _status(field: str) -> float:
    """Of this process, in MB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / MB


if __name__ == "__main__":
    main()
