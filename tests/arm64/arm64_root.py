"""A small arm64 Debian, unpacked into a folder of the cache with an emulator beside its Python: nothing is installed
on this machine.

Knows apt, in a state folder of its own, and what Python needs to start. Knows nothing of boards or of what is run.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SUITE = "bookworm"
PYTHON = "3.11"  # that suite's
GLIBC = 36  # its 2.x, which says what wheels may be built for
PACKAGES = ("python3-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6", "libgomp1")
EMULATOR_PACKAGE, EMULATOR = "qemu-user-static", "usr/bin/qemu-aarch64-static"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
USUAL_ARCHIVE = "http://deb.debian.org/debian"
# Places that are mounted over when something is run.
MOUNT_POINTS = ("proc", "sys", "dev", "opt/site", "work", "tmp")


class CannotEmulate(Exception):
    """Why there is no arm64 here, and what it would need."""


def make_root(cache: Path) -> Path:
    """The folder of the root, made at the first call: about ten seconds and 30 MB of download, 80 MB on disk.

    Raises CannotEmulate. Made whole or not at all.
    """
    key = hashlib.sha256(repr((SUITE, PACKAGES, EMULATOR_PACKAGE, MOUNT_POINTS)).encode()).hexdigest()[:12]
    root = cache / f"arm64-{key}"
    if root.is_dir():
        return root
    check_tools()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="arm64-", dir=cache) as work:
        made = Path(work) / "root"
        _unpack(_fetch(Path(work) / "apt"), made)
        try:
            made.rename(root)
        except OSError:  # another process was faster
            if not root.is_dir():
                raise
    return root


def check_tools() -> None:
    """Raises CannotEmulate naming what is missing of this machine."""
    machine = os.uname()
    if (machine.sysname, machine.machine) != ("Linux", "x86_64"):
        raise CannotEmulate(f"a Linux x86-64 machine emulates arm64; this is {machine.sysname} {machine.machine}")
    for tool in ("apt-get", "dpkg-deb", "tar", "unshare", "chroot"):
        if shutil.which(tool) is None:
            raise CannotEmulate(f"{tool} is needed, as Debian has it")
    if not KEYRING.exists():
        raise CannotEmulate(f"{KEYRING} is needed: apt install debian-archive-keyring")
    tried = subprocess.run([*namespace(), "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise CannotEmulate(f"root, or namespaces for users, are needed: unshare says {tried.stderr.strip()!r}")


def namespace() -> list[str]:
    """The command that runs another one with mounts of its own, which end with it."""
    return ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]


def _fetch(apt: Path) -> Iterator[tuple[Path, str | None]]:
    """Downloads; gives each package with the one file of it that is wanted, None for all."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_archive()} {SUITE} main\n")
    (apt / "apt.conf").write_text(
        'APT::Architecture "amd64"; APT::Architectures {"amd64"; "arm64";}; APT::Install-Recommends "false";\n'
        f'Dir::State "{apt}/state"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}/cache";\n'
        f'Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "-";\n'
        'Debug::NoLocking "true"; APT::Sandbox::User "";\n'
    )
    wanted = [*(f"{package}:arm64" for package in PACKAGES), f"{EMULATOR_PACKAGE}:amd64"]
    for arguments in (["update"], ["install", "--yes", "--download-only", *wanted]):
        command = ["apt-get", "-qq", *arguments]
        environment = os.environ | {"APT_CONFIG": str(apt / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise CannotEmulate(f"apt-get {arguments[0]} for arm64 does not work here: {last}")
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        if package.name.endswith(("_arm64.deb", "_all.deb")):
            yield package, None
        elif package.name.startswith(f"{EMULATOR_PACKAGE}_"):
            yield package, f"./{EMULATOR}"


def _archive() -> str:
    """Where this machine has Debian's packages from, if it is a Debian."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    known = [line.rstrip("/") for line in done.stdout.splitlines()]
    return next((uri for uri in known if uri.endswith("/debian")), USUAL_ARCHIVE)


def _unpack(packages: Iterator[tuple[Path, str | None]], root: Path) -> None:
    for name in ("bin", "lib", "sbin"):  # a merged /usr, as the suite has it
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package, wanted in packages:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as source:
            command = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", root]
            subprocess.run([*command, wanted] if wanted else command, stdin=source.stdout, check=True)
        if source.returncode:
            raise CannotEmulate(f"{package.name} cannot be unpacked")
    for name in MOUNT_POINTS:
        (root / name).mkdir(parents=True, exist_ok=True)
