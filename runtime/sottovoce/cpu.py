"""Which instruction sets this machine's processor has, by the names the Linux kernel gives them.

Reads /proc/cpuinfo on Linux and Android, sysctl on macOS. Elsewhere the answer is "unknown", never "none".
Knows nothing of which target or engine wants what."""

import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

ARM_FEATURES = frozenset(
    ("asimd", "asimddp", "asimdhp", "asimdrdm", "bf16", "crc32", "fp", "fphp", "i8mm", "sme", "sve", "sve2")
)
ALIASES = {
    "neon": "asimd",
    "dotprod": "asimddp",
    "fp16": "asimdhp",
    "avx512vnni": "avx512_vnni",
    "avxvnni": "avx_vnni",
}
_MACHINES = {
    "x86_64": "x86",
    "amd64": "x86",
    "i686": "x86",
    "aarch64": "arm",
    "arm64": "arm",
    "armv8l": "arm",
}
_CPUINFO_KEYS = {"x86": "flags", "arm": "Features"}

_SYSCTL = {  # Apple's names: developer.apple.com, "Determining instruction set characteristics"
    "arm.AdvSIMD": ("asimd",),
    "neon": ("asimd",),
    "arm.FEAT_DotProd": ("asimddp",),
    "arm.FEAT_FP16": ("asimdhp", "fphp"),
    "arm.FEAT_I8MM": ("i8mm",),
    "arm.FEAT_BF16": ("bf16",),
    "arm.FEAT_SME": ("sme",),
    "avx1_0": ("avx",),
    "avx2_0": ("avx2",),
    "fma": ("fma",),
    "f16c": ("f16c",),
    "avx512f": ("avx512f",),
    "avx512bw": ("avx512bw",),
    "avx512vl": ("avx512vl",),
    "avx512vnni": ("avx512_vnni",),
}


@dataclass(frozen=True, slots=True)
class Cpu:
    """`machine` is "x86", "arm" or whatever Python calls it; `features` is None where unknown."""

    machine: str
    features: frozenset[str] | None

    def missing(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Those of `wanted` that belong to this kind of processor and that this one is known to lack."""
        features = self.features
        if features is None:
            return ()
        names = [(name, ALIASES.get(name, name)) for name in wanted]
        return tuple(name for name, real in names if self._own(real) and real not in features)

    def foreign(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Those of `wanted` that belong to another kind of processor altogether."""
        return tuple(name for name in wanted if not self._own(ALIASES.get(name, name)))

    def _own(self, feature: str) -> bool:
        return (feature in ARM_FEATURES) == (self.machine == "arm")


def this_cpu() -> Cpu:
    """The processor this process runs on."""
    machine = _MACHINES.get(platform.machine().lower(), platform.machine())
    try:
        if sys.platform == "darwin":
            return Cpu(machine, _parse_sysctl(_sysctl()))
        return Cpu(machine, _parse_cpuinfo(CPUINFO.read_text("utf-8", "replace"), machine))
    except (OSError, subprocess.SubprocessError):
        return Cpu(machine, None)


def _parse_cpuinfo(text: str, machine: str) -> frozenset[str] | None:
    """What every core has; None when the listing is that of another machine, as it is under emulation."""
    wanted = _CPUINFO_KEYS.get(machine)
    cores = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == wanted:
            cores.append(frozenset(value.split()))
    return frozenset.intersection(*cores) if cores else None


def _sysctl() -> str:
    command = ["/usr/sbin/sysctl", "hw.optional"]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout


def _parse_sysctl(text: str) -> frozenset[str] | None:
    found: set[str] = set()
    lines = [line.partition(":") for line in text.splitlines()]
    for key, _, value in lines:
        if value.strip() == "1":
            found.update(_SYSCTL.get(key.strip().removeprefix("hw.optional."), ()))
    return frozenset(found) if found else None
