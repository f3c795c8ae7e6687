"""Running the arm64 Python as a board: mounts of its own, the emulated processor, and a memory limit where asked."""

import subprocess
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from memory_limit import MemoryGroup
from tests.arm64.arm64_root import EMULATOR, namespace
from tests.arm64.boards import Board

TIMEOUT = 240.0  # seconds
_MB = 1_000_000
# $1 root, $2 board's files, $3 site-packages, $4 the folder to work in; then the command.
_SCRIPT = """
mount --rbind /proc "$1/proc"
mount --bind "$2/cpuinfo" "$1/proc/cpuinfo"
mount --bind "$2/sys" "$1/sys"
mount --rbind /dev "$1/dev"
mount --bind "$3" "$1/opt/site"
mount --bind "$4" "$1/work"
root="$1"; shift 4
exec chroot "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed and how it ended; `peak_mb` (10^6 bytes) of its memory group, where it had one."""

    code: int
    out: str
    err: str
    peak_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Emulated:
    """A board on which Python runs: `root` is the unpacked system, `site` the installed packages."""

    board: Board
    root: Path
    site: Path
    folder: Path  # of this board: its files, and work/, which is /work there

    @classmethod
    def make(cls, board: Board, root: Path, site: Path, folder: Path) -> "Emulated":
        """Writes the board's files into `folder`."""
        (folder / "work").mkdir(parents=True)
        (folder / "cpuinfo").write_text(board.cpuinfo())
        board.write_sys(folder / "sys")
        return cls(board, root, site, folder)

    @property
    def work(self) -> Path:
        """What is put here is in /work there."""
        return self.folder / "work"

    def sottovoce(self, *arguments: str, memory_mb: int | None = None) -> Answer:
        """The installed command; with `memory_mb` (10^6 bytes) it is killed where it needs more."""
        return self.python("-m", "sottovoce", *arguments, memory_mb=memory_mb)

    def python(self, *arguments: str, memory_mb: int | None = None) -> Answer:
        """The arm64 Python with these arguments. Raises LimitUnavailable where memory cannot be limited here."""
        folders = map(str, (self.root, self.folder, self.site, self.work))
        command = [*namespace(), "sh", "-euc", _SCRIPT, "sh", *folders, f"/{EMULATOR}", "/usr/bin/python3", *arguments]
        group = MemoryGroup.make(memory_mb * _MB) if memory_mb is not None else None
        with group or nullcontext():
            done = subprocess.run(
                command if group is None else group.inside(command),
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                env={
                    "QEMU_CPU": self.board.qemu_cpu,
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "PYTHONPATH": "/opt/site",
                    "HOME": "/work",
                    "LANG": "C.UTF-8",
                },
                timeout=TIMEOUT,
                check=False,
            )
            peak = None if group is None else group.peak_bytes() / _MB
        return Answer(done.returncode, done.stdout, done.stderr, peak)
