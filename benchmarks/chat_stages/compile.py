"""Seconds to lower and pack a source to Q4_K_M, without a report, in a fresh process with its sources on disk.

As `sottovoce compile` does it, and without the calibration that it does by default. Run as a script it is that process:
it takes one JSON object and prints one.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from chat_plan import ChatModel, Plan

from chat_stages import Json, say
from chat_stages.fresh import in_fresh_process

RUNS = 1  # counted; reading the source for the first time is not


def run(plan: Plan, model: ChatModel) -> Json:
    """Medians, with the whole life of the process beside its parts. On all cores: the compiler takes them."""
    runs: dict[str, list[Json]] = {"calibrated": [], "plain": []}
    for number in range(RUNS + 1):
        for name, found in runs.items():
            if number or name == "calibrated":  # the first of all is not counted: it reads from disk
                say(f"  {name}, run {number} of {RUNS}")
                began = time.perf_counter()
                one = in_fresh_process("chat_stages.compile", {"spec": model.spec, "calibrate": name == "calibrated"})
                if number:
                    found.append({**one, "process_s": time.perf_counter() - began})
    return {name: _median(found) | {"runs": found} for name, found in runs.items()}


def _median(runs: list[Json]) -> Json:
    return {key: statistics.median(one[key] for one in runs) for key in runs[0]}


def _here(job: Json) -> Json:
    began = time.perf_counter()
    from footprint import status_kb

    from chat_stages.drafts import draft
    from sottovoce_compiler.sources import resolve

    imported = time.perf_counter()
    checkpoint = resolve(job["spec"])
    resolved = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bundle = draft(checkpoint, "gguf", "q4_k_m", Path(folder), calibrate=job["calibrate"])
        packed = time.perf_counter()
        size = bundle.stat().st_size
    return {
        "import_s": imported - began,
        "resolve_s": resolved - imported,
        "lower_and_pack_s": packed - resolved,
        "bytes": size,
        "peak_mb": status_kb("VmHWM") * 1024 / 1e6,
    }


if __name__ == "__main__":
    print(json.dumps(_here(json.loads(sys.argv[1]))))
