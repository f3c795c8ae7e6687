"""The clock beside a Transcriber: how long it takes to load, to its first segment, and for a second of audio.

Knows nothing of how the work is done: it calls a Transcriber as a user would, in a process that has done nothing else.
"""

import time
from statistics import median
from typing import Any

from sottovoce.bench import BenchResult, machine_facts, megabytes_since, peak_bytes

GOLDEN_AUDIO = "golden/case-0.wav"


def measure_here(path: str, audio: str | None, runs: int, threads: int | None) -> BenchResult:
    """The measurement of a speech bundle, in this process. Raises what a Transcriber raises."""
    import sottovoce
    from sottovoce.audio import SAMPLE_RATE, load_audio
    from sottovoce.bundle import open_bundle

    bundle = open_bundle(path)
    load_engine(bundle.manifest.engine.name)
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
    audio_s = len(samples) / SAMPLE_RATE
    runs_s = tuple(round(total, 4) for _, total in timed[1:])
    return BenchResult(
        load_s=round(load_s, 4),
        first_s=round(timed[0][0], 4),
        rtf=round(median(runs_s) / audio_s, 5),
        peak_mb=megabytes_since(before),
        bytes=bundle.size,
        audio_s=round(audio_s, 3),
        runs_s=runs_s,
        threads=threads,
        machine=machine_facts(),
        process_mb=megabytes_since(0),
    )


def load_engine(name: str) -> None:
    """The libraries of an engine, which are no part of loading a model; beside any, onnxruntime finds speech."""
    import onnxruntime  # noqa: F401

    if name == "litert":
        from sottovoce.engines.litert_model import load_interpreter

        load_interpreter()


def _timed_run(transcriber: Any, samples: Any) -> tuple[float, float]:
    """Seconds to the first segment (to the end, when there is none) and in all."""
    started = time.perf_counter()
    first: float | None = None
    segments, _ = transcriber.transcribe(samples)
    for _ in segments:
        first = first or time.perf_counter() - started
    total = time.perf_counter() - started
    return first or total, total
