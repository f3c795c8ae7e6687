"""How much memory can be had here: the system's, or what a container leaves. Bytes throughout."""

import os
from pathlib import Path


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What can be had without swapping: the system's, and no more than a container's limit; None where unknown."""
    found = [
        bytes_ for bytes_ in (_system(proc / "meminfo"), _limit_v2(cgroup), _limit_v1(cgroup)) if bytes_ is not None
    ]
    return min(found, default=None)


def reported_bytes() -> int | None:
    """As `available_bytes`; where no such numbers are kept, all the memory that the machine has, None where that is not
    told either."""
    found = available_bytes()
    if found is not None:
        return found
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _system(meminfo: Path) -> int | None:
    fields = _numbers(meminfo)
    return fields["MemAvailable:"] * 1024 if "MemAvailable:" in fields else None


def _limit_v2(cgroup: Path) -> int | None:
    return _left(cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat", "file")


def _limit_v1(cgroup: Path) -> int | None:
    folder = cgroup / "memory"
    usage, stat = folder / "memory.usage_in_bytes", folder / "memory.stat"
    return _left(folder / "memory.limit_in_bytes", usage, stat, "total_cache")


def _left(limit: Path, usage: Path, stat: Path, cached: str) -> int | None:
    """A container's limit less what it uses; files it has read count as used, and are given up when room is needed."""
    most, used = _number(limit), _number(usage)
    if most is None or used is None:
        return None
    return max(0, most - max(0, used - _numbers(stat).get(cached, 0)))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):  # "max" where there is no limit
        return None


def _numbers(path: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except (OSError, ValueError):
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
