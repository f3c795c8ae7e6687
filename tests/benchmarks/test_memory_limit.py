"""A limit on memory is enforced by the kernel, or said to be unavailable."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import memory_limit
import pytest
from memory_limit import LimitUnavailable, MemoryGroup

MB = 1_000_000


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    """With room for 60 MB, in which Python starts."""
    try:
        with MemoryGroup.make(60 * MB) as made:
            yield made
    except LimitUnavailable as reason:
        pytest.skip(str(reason))


def python(group: MemoryGroup, code: str) -> "subprocess.CompletedProcess[str]":
    command = group.inside([sys.executable, "-S", "-c", code])
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_fits_runs_and_is_counted(group: MemoryGroup) -> None:
    done = python(group, "x = bytearray(b'x') * 30_000_000; print(len(x), 'a b')")
    assert (done.returncode, done.stdout) == (0, "30000000 a b\n")
    assert 30 * MB < group.peak_bytes() <= 61 * MB and group.kills() == 0


def test_what_needs_more_is_killed(group: MemoryGroup) -> None:
    assert python(group, "x = bytearray(b'x') * 100_000_000").returncode != 0
    assert group.peak_bytes() <= 61 * MB and group.kills() == 1


def test_a_group_is_removed_when_it_has_ended() -> None:
    try:
        with MemoryGroup.make(60 * MB) as made:
            assert made.folder.is_dir()
    except LimitUnavailable as reason:
        pytest.skip(str(reason))
    assert not made.folder.exists()


def test_without_control_groups_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = memory_limit._Version(tmp_path, "limit", "peak", "swap", "events")
    monkeypatch.setattr(memory_limit, "_VERSIONS", (version,))
    with pytest.raises(LimitUnavailable, match="root and the memory controller"):
        MemoryGroup.make(60 * MB)
    assert list(tmp_path.iterdir()) == []
