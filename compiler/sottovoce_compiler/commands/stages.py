"""How long work shows where it is, on stderr: a compile as a bar a stage on a terminal and a line a stage elsewhere,
other work as one bar on a terminal.

Knows the names of the stages. Knows nothing of what they do.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sottovoce_compiler.request import STAGES, Progress


@contextmanager
def stage_progress() -> Iterator[Progress]:
    """What `compile_model` is to be given as its `progress`."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<17}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {stage: bars.add_task(stage, total=1, start=False, visible=False) for stage in STAGES}

        def show_stage(stage: str, done: float) -> None:
            for name in STAGES[: STAGES.index(stage)]:
                bars.update(tasks[name], completed=1)
                bars.stop_task(tasks[name])
            bars.start_task(tasks[stage])
            bars.update(tasks[stage], completed=done, visible=True)

        yield show_stage
        for stage in STAGES:
            bars.update(tasks[stage], completed=1)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[float], None]]:
    """What is to be told how much of `total` is done: a bar where stderr is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.update(task, completed=done)


class _Lines:
    """One line on stderr when a stage begins."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, stage: str, done: float) -> None:
        if stage != self._last:
            self._last = stage
            print(f"sottovoce: {stage}", file=sys.stderr)
