"""Where and with what a figure was measured: hardware, library versions, date, command line.

Writes nothing that tells one machine of a kind from another: no host name, no user, no folder.
"""

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

FLAGS_OF_INTEREST = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
)


def describe() -> Mapping[str, object]:
    """Processor, usable cores, instructions that matter to int8, memory, system, and how busy it is now."""
    facts = _cpu_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    return {
        "cpu": facts.get("model name", platform.machine()),
        "cpu_family_model": f"{facts.get('cpu family', '?')}/{facts.get('model', '?')}",
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in FLAGS_OF_INTEREST if flag in flags],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _cpu_facts() -> Mapping[str, str]:
    """Fields of the first processor in /proc/cpuinfo; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def today() -> str:
    """UTC date, ISO 8601."""
    return datetime.now(UTC).date().isoformat()


def command_line(script: str, arguments: Sequence[str]) -> str:
    """The command with every path cut to its last part: the folders of a machine are nobody's business."""
    return shlex.join(["python", script, *(_without_folders(argument) for argument in arguments)])


def _without_folders(argument: str) -> str:
    name, equals, path = argument.partition("=")
    if equals:
        return f"{name}={_without_folders(path)}"
    where = Path(argument).expanduser()
    return where.name if where.is_absolute() or ("/" in argument and where.exists()) else argument
