"""A limit on the memory of a process and its children, enforced by the kernel: a control group, version 1 or 2.

What a group counts is what its processes allocate and the file contents that they are the first to read; contents
are given up before anybody is killed. Linux only, and by root.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Self

_CGROUPS = Path("/sys/fs/cgroup")
_numbers = count()


class LimitUnavailable(Exception):
    """Memory cannot be limited here, and why."""


@dataclass(frozen=True, slots=True)
class _Version:
    """The names of one version's files."""

    parent: Path
    limit: str
    peak: str
    swap: str
    events: str


_VERSIONS = (
    _Version(
        _CGROUPS / "memory",
        "memory.limit_in_bytes",
        "memory.max_usage_in_bytes",
        "memory.swappiness",
        "memory.oom_control",
    ),
    _Version(_CGROUPS, "memory.max", "memory.peak", "memory.swap.max", "memory.events"),
)


@dataclass(slots=True)
class MemoryGroup:
    """A group with a limit; use it as a context, which removes it when its processes have ended."""

    folder: Path
    _version: _Version = field(repr=False)

    @classmethod
    def make(cls, limit: int) -> "MemoryGroup":
        """A new group of `limit` bytes, without swap. Raises LimitUnavailable."""
        for version in _VERSIONS:
            folder = version.parent / f"sottovoce-{os.getpid()}-{next(_numbers)}"
            try:
                if not (version.parent / "cgroup.procs").exists():
                    continue
                folder.mkdir()
            except OSError:
                continue
            try:
                (folder / version.limit).write_text(str(limit))
                (folder / version.peak).read_text()
            except OSError:
                folder.rmdir()
                continue
            with suppress(OSError):  # a kernel that counts no swap
                (folder / version.swap).write_text("0")
            return cls(folder, version)
        raise LimitUnavailable("limiting memory needs root and the memory controller in /sys/fs/cgroup")

    def inside(self, command: list[str]) -> list[str]:
        """The command that runs `command` in the group, from its first byte on."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.folder / "cgroup.procs"), *command]

    def peak_bytes(self) -> int:
        """The most that was counted so far."""
        return int((self.folder / self._version.peak).read_text())

    def kills(self) -> int:
        """How many processes were killed because of the limit."""
        lines = (self.folder / self._version.events).read_text().split("\n")
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _try in range(50):  # a process that has just ended may be counted for a moment
            try:
                self.folder.rmdir()
                return
            except OSError:
                time.sleep(0.1)
