"""Runs a module of the benchmarks in a process of its own: one JSON value in, one out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_BENCHMARKS = Path(__file__).parents[1]


def in_fresh_process(module: str, argument: Any) -> Any:
    """What the module, run as a script, prints last. RuntimeError with its last words where it fails."""
    before = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_BENCHMARKS), *before])}
    command = [sys.executable, "-m", module, json.dumps(argument, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{module} failed in a fresh process: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])
