"""Load time and peak memory above imports of one system, in a process of its own that answers one prompt.

Run as a script it is that process: it takes one JSON object and prints one. Linux only (/proc). Weights that are mapped
from a file count as resident; what remains without them is told apart.
"""

import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chat_plan import LLAMA_CPP, ChatBundle, ChatModel, Plan
from peers.chat import (
    GENAI,
    LLAMA_CPP_PYTHON,
    OURS,
    RAW,
    RAW_DEFAULTS,
    Made,
    Question,
    available,
    create_chat,
)

from chat_stages import Json, say
from chat_stages.fresh import in_fresh_process

RUNS = 3  # counted, after one that fills the page cache


def run(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Json:
    """Medians of each system that can run the bundle, or its precision; systems take turns."""
    jobs = {name: _job(plan, bundle, system, genai) for name, (system, genai) in _systems(plan, model, bundle).items()}
    runs: dict[str, list[Json]] = {name: [] for name in jobs}
    for number in range(RUNS + 1):
        for name, job in jobs.items():
            say(f"  {name}, run {number} of {RUNS}")
            found = in_fresh_process("chat_stages.memory", job)
            if number:
                runs[name].append(found)
    return {name: _median(found) for name, found in runs.items()}


def _systems(plan: Plan, model: ChatModel, bundle: ChatBundle) -> dict[str, tuple[str, Path | None]]:
    """By what a table calls it: the system, and the folder that it takes."""
    if bundle.engine == LLAMA_CPP:
        return {name: (name, None) for name in available((OURS, RAW, RAW_DEFAULTS, LLAMA_CPP_PYTHON))}
    from chat_stages.onnx_engine import genai_folders

    folders = genai_folders(plan, model, bundle)
    return {OURS: (OURS, None)} | {f"{GENAI} {name}": (GENAI, folder) for name, folder in folders.items()}


def _job(plan: Plan, bundle: ChatBundle, system: str, genai: Path | None) -> Json:
    question = _question(plan, bundle)
    made = {"bundle": asdict(bundle), "threads": plan.threads, "context": plan.context, "work": plan.work}
    return {"system": system, "made": {**made, "genai": genai}, "question": asdict(question), "tokens": plan.tokens}


def _question(plan: Plan, bundle: ChatBundle) -> Question:
    from peers.sottovoce_chat import SottovoceChat

    from chat_stages.loop import ask

    chat = SottovoceChat(Made(bundle, plan.threads, plan.context, plan.work))
    chat.load()
    question = ask(chat, min(plan.prompts))
    chat.close()
    return question


def _median(runs: list[Json]) -> Json:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def _here(job: Mapping[str, Any]) -> Json:
    from footprint import forget_peak, status_kb

    began = time.perf_counter()
    system = create_chat(job["system"], _made(job["made"]))
    imported = time.perf_counter()
    forget_peak()
    before = status_kb("VmRSS")
    anonymous = status_kb("RssAnon")
    loading = time.perf_counter()
    system.load()
    loaded = time.perf_counter()
    after = status_kb("VmRSS")
    given = job["question"]
    system.answer(Question(tuple(given["messages"]), given["text"], tuple(given["tokens"])), job["tokens"], None)
    kilobytes = {
        "loaded_mb": after - before,
        "peak_mb": status_kb("VmHWM") - before,
        "anonymous_mb": status_kb("RssAnon") - anonymous,
    }
    seconds = {"import_s": imported - began, "load_s": loaded - loading}
    return {**seconds, **{name: kb * 1024 / 1e6 for name, kb in kilobytes.items()}}


def _made(fields: Mapping[str, Any]) -> Made:
    bundle = ChatBundle(**{**fields["bundle"], "path": Path(fields["bundle"]["path"])})
    genai = None if fields["genai"] is None else Path(fields["genai"])
    return Made(bundle, fields["threads"], fields["context"], Path(fields["work"]), genai)


if __name__ == "__main__":
    print(json.dumps(_here(json.loads(sys.argv[1]))))
