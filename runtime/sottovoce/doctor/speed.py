"""How fast this machine computes and reads its memory: two figures, in about a second.

Knows NumPy and clocks. What the figures mean for a model is `outlook`'s.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sottovoce.memory import reported_bytes

SECONDS = 0.4  # of each of the two measurements, at least
_SIDE = 512  # of the matrices: large enough for every core, 1 MB each
_LEAST, _MOST = 16 << 20, 128 << 20  # bytes that are read: more than caches hold, where there is the memory for it
_SHARE = 8  # one part in so many of what is free


@dataclass(frozen=True, slots=True)
class Speed:
    """`gflops`: 10^9 floating point operations a second in float32 matrix products; `gb_per_s`: 10^9 bytes a second
    read from memory. Both with every core."""

    gflops: float
    gb_per_s: float


def measure_speed(seconds: float = SECONDS) -> Speed | None:
    """The machine's speed, the best of several tries; None where NumPy is not installed."""
    try:
        import numpy as np
    except ImportError:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    left = np.ones((_SIDE, _SIDE), np.float32)
    out = np.empty_like(left)
    product = _best(lambda: np.matmul(left, left, out=out), seconds)
    size = min(_MOST, max(_LEAST, (reported_bytes() or _MOST) // _SHARE))
    parts = np.array_split(np.ones(size // 8, np.int64), cores)
    with ThreadPoolExecutor(cores) as pool:
        read = _best(lambda: list(pool.map(np.sum, parts)), seconds)  # NumPy lets go of Python's lock in there
    return Speed(round(2 * _SIDE**3 / product / 1e9, 1), round(size / read / 1e9, 1))


def _best(work: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest run, of as many as fit, and three at least; a first one is not counted."""
    work()
    best, runs, started = float("inf"), 0, time.perf_counter()
    while runs < 3 or time.perf_counter() - started < seconds:
        begun = time.perf_counter()
        work()
        best, runs = min(best, time.perf_counter() - begun), runs + 1
    return max(best, 1e-9)
