"""Triton's interpreter beside Triton's compiler: tests marked `interpreted` run in a process of their own.

Triton decides when it is imported whether `@triton.jit` interprets (TRITON_INTERPRET=1) or compiles, its own library
included, so one process can do one of the two. Here the marked tests that were selected run together in a second
pytest, started when the first of them is due; each reports its own result where it stands. In that process
`sottovoce_kernels.backend.interpreted()` is true and backend "triton" takes CPU tensors. Interpreted are float32,
float16 and integers; bfloat16 comes out wrong there. Shapes stay under 128, for it is thousands of times slower.

    @pytest.mark.interpreted
    def test_kernel_equals_the_reference(): ...

What needs a GPU takes the fixture `gpu`, which skips without one.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from sottovoce_kernels.backend import interpreted

if str(Path(__file__).parent) not in sys.path:
    sys.path.append(str(Path(__file__).parent))  # tiers.py, which the tests of operations share

RESULTS = "SOTTOVOCE_INTERPRETED_RESULTS"  # where the second process writes, a JSON line a test
TIMEOUT_S = 600.0

selected = pytest.StashKey[list[str]]()
outcomes = pytest.StashKey[Mapping[str, tuple[str, str]]]()


@pytest.fixture
def gpu() -> torch.device:
    """A CUDA device with tensor cores for bfloat16; the test is skipped without one."""
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU and a torch built for CUDA")
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip(f"needs compute capability 8.0 or newer, this is {torch.cuda.get_device_name()}")
    return torch.device("cuda")


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known."""
    config.addinivalue_line("markers", "interpreted: runs in Triton's interpreter, in a process of its own")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remembers which tests the second process will be asked for."""
    session.config.stash[selected] = [item.nodeid for item in session.items if item.get_closest_marker("interpreted")]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """In place of an interpreted test: what came of it in the second process."""
    if interpreted() or pyfuncitem.get_closest_marker("interpreted") is None:
        return None
    config = pyfuncitem.config
    if outcomes not in config.stash:
        config.stash[outcomes] = _run_interpreted(config)
    outcome, text = config.stash[outcomes].get(pyfuncitem.nodeid, ("failed", "the interpreting process did not run it"))
    if outcome == "skipped":
        pytest.skip(text)
    if outcome != "passed":
        pytest.fail(text, pytrace=False)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the second process: hands each result over."""
    path = os.environ.get(RESULTS)
    if path is None or (report.when != "call" and report.passed):
        return
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps([report.nodeid, report.outcome, text]) + "\n")


def _run_interpreted(config: pytest.Config) -> Mapping[str, tuple[str, str]]:
    """Outcome and text of each marked test by its id."""
    with tempfile.TemporaryDirectory() as folder:
        results, tests = Path(folder, "results.jsonl"), Path(folder, "tests")
        results.touch()
        tests.write_text("\n".join(config.stash[selected]))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--runxfail", "-p", "no:cacheprovider", f"@{tests}"],
            cwd=config.rootpath,
            env={**os.environ, "TRITON_INTERPRET": "1", RESULTS: str(results)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    if not lines:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        pytest.fail(f"the interpreting process ended with {done.returncode}:\n{tail}", pytrace=False)
    return {nodeid: (outcome, text) for nodeid, outcome, text in lines}
