"""Boards as their processes see them: the emulated processor, and the files by which a library finds out about it.

onnxruntime crashes on import where an x86 machine's own files show through. Features and part numbers are those that
Raspberry Pi OS prints (Arm's Main ID Register; the Pi 4 has no cryptography extension, the Zero 2 W none either).
"""

import os
from dataclasses import dataclass
from pathlib import Path

# They have four. More than there are here would wait for one another in loops, and wait long.
CORES = min(4, os.cpu_count() or 1)
_IMPLEMENTER = "0x41"  # Arm


@dataclass(frozen=True, slots=True)
class Board:
    """One board: the `target` that is compiled for it, and its processor by qemu's name, by Arm's part and revision
    ("rXpY"), and by the kernel's names for what it can do."""

    name: str
    target: str
    qemu_cpu: str
    part: str
    revision: tuple[int, int]
    features: str
    memory_mb: int | None = None  # that is enforced

    def cpuinfo(self) -> str:
        """/proc/cpuinfo."""
        cores = [
            f"processor\t: {core}\n"
            "BogoMIPS\t: 108.00\n"
            f"Features\t: {self.features}\n"
            f"CPU implementer\t: {_IMPLEMENTER}\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: {self.revision[0]:#x}\n"
            f"CPU part\t: {self.part}\n"
            f"CPU revision\t: {self.revision[1]}\n"
            for core in range(CORES)
        ]
        return "\n".join([*cores, f"Model\t\t: {self.name}\n"])

    def write_sys(self, folder: Path) -> None:
        """What of /sys is read: which cores there are."""
        cpu = folder / "devices" / "system" / "cpu"
        cpu.mkdir(parents=True)
        for name in ("possible", "present", "online"):
            (cpu / name).write_text(f"0-{CORES - 1}\n")


BOARDS = (
    Board(
        "Raspberry Pi 4 Model B Rev 1.4",
        "raspberry-pi-4",
        "cortex-a72",
        "0xd08",
        (0, 3),
        "fp asimd evtstrm crc32 cpuid",
    ),
    Board(
        "Raspberry Pi 5 Model B Rev 1.0",
        "raspberry-pi-5",
        "cortex-a76",
        "0xd0b",
        (4, 1),
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
    Board(
        "Raspberry Pi Zero 2 W Rev 1.0",
        "raspberry-pi-zero-2w",
        "cortex-a53",
        "0xd03",
        (0, 4),
        "fp asimd evtstrm crc32 cpuid",
        memory_mb=512,
    ),
)
