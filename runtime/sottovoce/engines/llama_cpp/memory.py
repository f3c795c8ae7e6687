"""Whether a model fits: what it will take, and what this machine or its container has left. Bytes throughout.

An estimate from above, made before anything is loaded, so that a device says a number instead of being killed.
"""

from dataclasses import dataclass
from pathlib import Path

from sottovoce.engines.llama_cpp.checks import ModelFacts
from sottovoce.errors import EngineError

_CACHE_VALUE = 2  # bytes: keys and values are kept as float16
_BESIDES = 32 << 20  # the library, its vocabulary, buffers that do not depend on the model
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Room:
    """How long a sequence may be (`context` positions), how many tokens are run at once, and of how many of them the
    logits are kept."""

    context: int
    batch: int
    outputs: int


def needed_bytes(weights: int, facts: ModelFacts, room: Room) -> int:
    """Weights, the cache of the whole context, and the buffers of a graph that runs one batch."""
    cache = room.context * facts.position_values * _CACHE_VALUE
    # Activations of a layer are live two or three at a time; the mask is kept in float32 and float16.
    activations = room.batch * (8 * facts.width + 3 * facts.ffn) * 4 + room.batch * room.context * 6
    logits = 2 * room.outputs * facts.vocabulary * 4
    return weights + cache + activations + logits + _BESIDES


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What can be had without swapping: the system's, and no more than a container's limit; None where unknown."""
    found = [
        bytes_ for bytes_ in (_system(proc / "meminfo"), _limit_v2(cgroup), _limit_v1(cgroup)) if bytes_ is not None
    ]
    return min(found, default=None)


def check_memory(weights: int, facts: ModelFacts, room: Room, available: int | None) -> None:
    """Raises EngineError with both numbers where the model does not fit."""
    needed = needed_bytes(weights, facts, room)
    if available is not None and needed > available:
        cache = room.context * facts.position_values * _CACHE_VALUE
        raise EngineError(
            f"the model needs about {needed // _MB} MB, {cache // _MB} MB of it for {room.context} positions; "
            f"{available // _MB} MB are available. A smaller context needs less, as does a model of fewer bits"
        )


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
