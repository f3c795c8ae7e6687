"""Memory in use is moved to huge pages and keeps what is in it; everything else is left alone."""

import mmap
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sottovoce import huge_pages
from sottovoce.huge_pages import CHOICE, HugePages, Range, _inner, _mapped, _without, move

SIZE = 2 << 20
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def huge_bytes(address: int) -> int:
    """How much of the mapping that has `address` is in huge pages."""
    part = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            part = int(found[1], 16) <= address < int(found[2], 16)
        elif part and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    return 0


def address_of(array: np.ndarray) -> int:
    return int(array.ctypes.data)


@pytest.fixture
def memory() -> Iterator[np.ndarray]:
    """16 MB in small pages, (n,) float32, all in use."""
    if huge_pages._huge_page_bytes() != SIZE:
        pytest.skip("needs Linux with transparent huge pages of 2 MB")
    held = mmap.mmap(-1, 8 * SIZE, flags=PRIVATE)
    values = np.frombuffer(held, np.float32)
    values[:] = np.arange(values.size)
    yield values


def inner(values: np.ndarray) -> Range:
    found = _inner((address_of(values), address_of(values) + values.nbytes), SIZE)
    assert found is not None
    return found


def test_what_is_in_use_is_moved_and_is_what_it_was(memory: np.ndarray) -> None:
    part = inner(memory)
    moved = move([part], SIZE, threading.Event())
    if not moved:
        pytest.skip("needs Linux 6.1 or newer, which can move memory to huge pages")
    assert 0 < moved <= part[1] - part[0]  # less where the system has little memory in one piece
    assert huge_bytes(address_of(memory)) >= moved
    assert np.array_equal(memory, np.arange(memory.size, dtype=np.float32))


def test_what_is_not_in_use_takes_no_memory_afterwards_either() -> None:
    setting = huge_pages._SETTINGS / "enabled"
    if not setting.exists() or "[madvise]" not in setting.read_text():
        pytest.skip("needs a system that gives huge pages where they are asked for, and nowhere else")
    held = mmap.mmap(-1, 8 * SIZE, flags=PRIVATE)
    values = np.frombuffer(held, np.float32)
    values[: values.size // 16] = 1
    assert move([inner(values)], SIZE, threading.Event()) == 0
    assert huge_bytes(address_of(values)) == 0


def test_nothing_is_moved_once_it_is_closed(memory: np.ndarray) -> None:
    stop = threading.Event()
    stop.set()
    assert move([inner(memory)], SIZE, stop) == 0


def test_nothing_is_moved_where_memory_is_short(memory: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "available_bytes", lambda: 100 << 20)
    assert move([inner(memory)], SIZE, threading.Event()) == 0


def test_memory_that_is_gone_is_passed_over() -> None:
    held = mmap.mmap(-1, 8 * SIZE, flags=PRIVATE)
    values = np.frombuffer(held, np.uint8)
    part = inner(values)
    del values
    held.close()
    assert move([part], SIZE, threading.Event()) == 0


def test_what_is_opened_in_the_block_is_moved_a_while_later(monkeypatch: pytest.MonkeyPatch) -> None:
    if huge_pages._huge_page_bytes() != SIZE:
        pytest.skip("needs Linux with transparent huge pages of 2 MB")
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setattr(huge_pages, "AFTER_S", 0.01)
    moved: list[list[Range]] = []
    done = threading.Event()

    def note(ranges: list[Range], size: int, stop: threading.Event) -> int:
        moved.append(ranges)
        done.set()
        return 0

    monkeypatch.setattr(huge_pages, "move", note)
    with HugePages():
        held = mmap.mmap(-1, 8 * SIZE, flags=PRIVATE)
    assert done.wait(10)
    at = address_of(np.frombuffer(held, np.uint8)) + 4 * SIZE
    assert any(first <= at < last for first, last in moved[0])


def test_it_can_be_turned_off_and_a_failed_opening_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(threading.Thread, "start", lambda self: started.append(self))
    monkeypatch.setenv(CHOICE, "0")
    with HugePages():
        one = mmap.mmap(-1, 8 * SIZE, flags=PRIVATE)
    monkeypatch.delenv(CHOICE)
    with pytest.raises(ZeroDivisionError), HugePages():
        other = mmap.mmap(-1, 8 * SIZE, flags=PRIVATE)
        raise ZeroDivisionError
    assert not started and len(one) == len(other)


@pytest.mark.parametrize("setting", ["[never]", "always madvise [never]"])
def test_an_owner_who_wants_none_gets_none(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "enabled").write_text(setting)
    (tmp_path / "hpage_pmd_size").write_text(str(SIZE))
    monkeypatch.setattr(huge_pages, "_SETTINGS", tmp_path)
    assert huge_pages._huge_page_bytes() is None


@pytest.mark.parametrize(
    ("ranges", "others", "left"),
    [
        ([(0, 10)], [], [(0, 10)]),
        ([(0, 10)], [(0, 10)], []),
        ([(0, 10)], [(2, 4), (6, 7)], [(0, 2), (4, 6), (7, 10)]),
        ([(0, 10), (20, 30)], [(5, 25)], [(0, 5), (25, 30)]),
        ([(5, 8)], [(0, 20)], []),
        ([(0, 30)], [(0, 10)], [(10, 30)]),
    ],
)
def test_what_was_there_before_is_taken_out(ranges: list[Range], others: list[Range], left: list[Range]) -> None:
    assert list(_without(ranges, others)) == left


def test_the_memory_of_this_process_is_found() -> None:
    held = mmap.mmap(-1, SIZE, flags=PRIVATE)
    at = address_of(np.frombuffer(held, np.uint8))
    found = list(_mapped())
    assert found == sorted(found)
    assert any(first <= at < last for first, last in found)
