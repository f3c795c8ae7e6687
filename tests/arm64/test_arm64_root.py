"""Where there can be no arm64 it is said what is missing, and nothing is left behind."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.arm64 import arm64_root
from tests.arm64.arm64_root import CannotEmulate, make_root
from tests.arm64.boards import BOARDS, Board


@pytest.fixture(autouse=True)
def debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has everything, and an apt that does nothing."""
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(sysname="Linux", machine="x86_64"))
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(arm64_root, "KEYRING", tmp_path)
    answers(monkeypatch)


def answers(monkeypatch: pytest.MonkeyPatch, **failing: str) -> None:
    """Every program succeeds, but those named, which say something and fail."""

    def run(command: list[str], **options: Any) -> Any:
        said = failing.get(command[0].replace("-", "_"), "")
        return subprocess.CompletedProcess(command, 100 if said else 0, "", said)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize("tool", ["apt-get", "dpkg-deb", "unshare"])
def test_a_tool_that_is_not_there_is_named(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == tool else f"/usr/bin/{name}")
    with pytest.raises(CannotEmulate, match=f"^{tool} is needed"):
        make_root(tmp_path / "cache")


def test_another_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(sysname="Darwin", machine="arm64"))
    with pytest.raises(CannotEmulate, match="this is Darwin arm64"):
        make_root(tmp_path / "cache")


def test_who_may_not_mount_is_told_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, unshare="unshare: unshare failed: Operation not permitted")
    with pytest.raises(CannotEmulate, match=r"root, or namespaces for users, are needed.*Operation not permitted"):
        make_root(tmp_path / "cache")


def test_without_the_archive_the_last_thing_that_apt_said_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, apt_get="W: one\nE: Could not resolve the archive")
    with pytest.raises(CannotEmulate, match="E: Could not resolve the archive"):
        make_root(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_root_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_root(tmp_path / "cache")
    assert all((root / name).is_dir() for name in arm64_root.MOUNT_POINTS) and (root / "lib").is_symlink()
    answers(monkeypatch, apt_get="E: no network")
    assert make_root(tmp_path / "cache") == root and list((tmp_path / "cache").iterdir()) == [root]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.target)
def test_a_boards_files_name_its_cores_alike(board: Board, tmp_path: Path) -> None:
    board.write_sys(tmp_path)
    last = (tmp_path / "devices/system/cpu/possible").read_text().strip().partition("-")[2]
    assert board.cpuinfo().count("processor\t:") == int(last) + 1
    assert f"CPU part\t: {board.part}" in board.cpuinfo()
