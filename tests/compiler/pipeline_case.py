"""A compile with everything slow replaced: a random model, two clips without sound, a measurement that is told.

Run as a script it stops at a stage, for a test that kills it there:
    python pipeline_case.py OUTPUT STAGE
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

from tests.runtime.random_whisper import random_checkpoint

from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.report.adaptation import Adaptation, Figure
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.evaluate import evaluate
from sottovoce_compiler.report.hypothesis import Hypothesis
from sottovoce_compiler.report.stream import Offline, StreamScorecard, score_clip
from sottovoce_compiler.report.stream_clock import LiveRun
from sottovoce_compiler.request import Compiled, Progress, Request
from sottovoce_targets import load_target

from .report.stream_case import STEPS, at, card, committed

TEXT = "the best of times"
ADAPTATION = Adaptation("lora", 3, "case", 0.5, (Figure("wer", 0.5, 0.25, 0.25),))
DATA = Dataset("case", (Clip("a", Path(__file__), TEXT, "en", 2.0),))


def says(text: str) -> Callable[[Clip], Hypothesis]:
    return lambda clip: Hypothesis(text, "en", 1.0)


def streamed(offline: str, text: str, path: Path, data: Dataset, charged: bool = False) -> StreamScorecard:
    run = LiveRun(at((1.0, committed(text))), STEPS, 2.0)
    return card(score_clip(DATA.clips[0], run, Offline(offline, ())), charged=charged)


@contextmanager
def nothing_slow(artifact: str = TEXT, stream: str | None = None) -> Iterator[None]:
    """The source says the truth, the artifact and its stream what they are told."""
    here = "sottovoce_compiler.speech_pipeline."
    with ExitStack() as stack:
        stack.enter_context(patch("sottovoce_compiler.pipeline.resolve", lambda spec: random_checkpoint()))
        stack.enter_context(patch(here + "builtin_set", lambda: DATA))
        stack.enter_context(patch(here + "fetch_component", lambda component: Path(__file__)))
        stack.enter_context(patch(here + "measured_heads", lambda checkpoint, dataset: ((0, 1), (1, 0))))
        stack.enter_context(patch(here + "evaluate_source", lambda *_: evaluate(says(TEXT), DATA)))
        stack.enter_context(patch(here + "bundle_transcriber", lambda path: says(artifact)))
        stack.enter_context(patch(here + "speech_adaptation", lambda *_: ADAPTATION))
        stack.enter_context(patch(here + "timestamp_drift", lambda *_: {"mean_ms": 1}))
        stack.enter_context(patch(here + "compiled_stream", partial(streamed, artifact, stream or artifact)))
        stack.enter_context(patch(here + "golden_files", lambda path, data: {"golden/case-0.json": b"{}"}))
        yield


def request(output: Path, precision: str = "int8") -> Request:
    return Request("random", load_target("linux-x86-64"), output, {}, precision)


def compile_to(
    output: Path,
    progress: Progress = lambda stage, done: None,
    artifact: str = TEXT,
    stream: str | None = None,
) -> Compiled:
    with nothing_slow(artifact, stream):
        return compile_model(request(output), progress)


def _stop_at(stage: str) -> Progress:
    def progress(now: str, done: float) -> None:
        if now == stage:
            print("there", flush=True)
            time.sleep(60)

    return progress


if __name__ == "__main__":
    compile_to(Path(sys.argv[1]), _stop_at(sys.argv[2]))
