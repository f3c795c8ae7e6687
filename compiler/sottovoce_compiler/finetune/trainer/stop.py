"""Being asked to stop: the first time a run finishes its step and saves, the second time it ends at once.

Knows signals. What is saved, and how, is the loop's.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds in which a second signal is the first one again: who ends a whole group of processes often sends two.
ONE = 1.0


class Stop:
    """Whether to stop, which signals set, or anyone else."""

    def __init__(self, said: Callable[[str], None] = lambda text: None) -> None:
        self._said = said
        self.asked = False
        self._signalled_at = -math.inf

    def ask(self) -> None:
        """At the end of the step that runs."""
        self.asked = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A signal: asks the first time, raises KeyboardInterrupt the second."""
        if time.monotonic() - self._signalled_at < ONE:
            return
        if self._signalled_at > -math.inf:
            raise KeyboardInterrupt
        self.asked, self._signalled_at = True, time.monotonic()
        self._said(f"{signal.Signals(number).name}: finishing this step and saving; once more ends it without")


@contextmanager
def listening(stop: Stop) -> Iterator[Stop]:
    """Ctrl-C and SIGTERM ask `stop` inside the block. Outside of the main thread, which alone may listen, nothing is
    changed."""
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
