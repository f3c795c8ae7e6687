"""A one-line progress bar on a terminal, and silence anywhere else.

Knows seconds of audio done and in all. Knows nothing of what is being done with them.
"""

import shutil
import sys
import time
from typing import TextIO

INTERVAL = 0.1  # seconds between two drawings
WORTH_A_BAR = 30.0  # seconds of audio below which the text itself is there as soon
CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Draws on stderr, if that is a terminal, how much of `total` seconds of audio is done.

    Text on stdout and the bar may share a screen: call `clear` before printing.
    """

    def __init__(self, total: float, label: str = "", stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty() and total >= WORTH_A_BAR
        self._total, self._label = total, label
        self._started = time.monotonic()
        self._drawn_at = -1.0

    def update(self, done: float) -> None:
        """`done` seconds of audio are finished."""
        now = time.monotonic()
        if self._shown and now - self._drawn_at >= INTERVAL:
            self._drawn_at = now
            self._stream.write(CLEAR_LINE + self._line(min(done, self._total), now - self._started))
            self._stream.flush()

    def clear(self) -> None:
        """Takes the bar off the screen; the next update draws it again."""
        if self._shown and self._drawn_at >= 0:
            self._drawn_at = -1.0
            self._stream.write(CLEAR_LINE)
            self._stream.flush()

    def _line(self, done: float, elapsed: float) -> str:
        part = done / self._total
        left = f"  {clock(elapsed / part - elapsed)} left" if part > 0.01 else ""
        tail = f" {part:4.0%}  {clock(done)} of {clock(self._total)}{left}"
        columns = shutil.get_terminal_size().columns - 1
        label = self._label[: max(0, columns // 3)]
        width = min(30, columns - len(tail) - len(label) - 3)
        if width < 5:
            return tail.strip()[:columns]
        full = round(part * width)
        return f"{label} [{'#' * full}{'.' * (width - full)}]{tail}".lstrip()


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
