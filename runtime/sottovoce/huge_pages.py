"""Moves what an engine holds to huge pages, a while after it was opened.

A model's matrices are gone through once for every token. In pages of 4 KB that is an address to be looked up for every
4 KB, more of them than a processor remembers; in pages of 2 MB they are few, and steps take a twentieth less time
(docs/decisions.md). Linux gives huge pages only to memory for which they are asked, and engines do not ask; since Linux
6.1 they can be had afterwards (madvise(2), MADV_COLLAPSE).

Nothing is done where the system has none or its owner wants none, nor for memory that is not in use already: what a
process takes does not grow.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sottovoce.memory import available_bytes

CHOICE = "SOTTOVOCE_HUGE_PAGES"  # the environment variable that turns this off, as 0
AFTER_S = 2.0  # from opening: who transcribes one clip has gone by then
_REST_S = 0.004  # between two pages, so that whoever computes meanwhile hardly notices
_USED = 0.95  # share of a huge page that must be in use already
_SPARE = 256 << 20  # bytes that must be left: while a page is copied it is there twice
_COLLAPSE = 25  # MADV_COLLAPSE
_FEW_REFUSALS = 8  # then the system has no memory in one piece left
_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")

Range = tuple[int, int]  # first address, and the one after the last


class HugePages:
    """What is opened in the `with` block is moved `AFTER_S` later, in a thread of its own; `close` before that, and it
    is not. A second block adds to the first."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._size = _huge_page_bytes() if os.environ.get(CHOICE) != "0" else None
        self._before: list[Range] = []

    def __enter__(self) -> "HugePages":
        if self._size is not None:
            self._before = list(_mapped())
        return self

    def __exit__(self, failed: object, *rest: object) -> None:
        if self._size is None or failed is not None:
            return
        opened = [whole for part in _without(_mapped(), self._before) if (whole := _inner(part, self._size))]
        if opened:
            threading.Thread(target=self._move, args=(opened, self._size), name="huge pages", daemon=True).start()

    def close(self) -> None:
        """Leave what is not moved yet as it is: it is about to be given back."""
        self._closed.set()

    def _move(self, opened: Iterable[Range], size: int) -> None:
        if not self._closed.wait(AFTER_S):
            move(opened, size, self._closed)


def move(ranges: Iterable[Range], size: int, stop: threading.Event) -> int:
    """Move what is in use of `ranges`, whose ends are multiples of `size`; the bytes moved. What has been given back
    meanwhile is passed over."""
    libc, moved, refused = _libc(), 0, 0
    for first, last in ranges:
        for address in range(first, last, size):
            if stop.is_set() or refused == _FEW_REFUSALS or not _room():
                return moved
            if not _in_use(libc, address, size):
                continue
            if libc.madvise(address, size, _COLLAPSE) == 0:
                moved += size
            else:
                refused += 1
            time.sleep(_REST_S)
    return moved


def _room() -> bool:
    available = available_bytes()
    return available is None or available > _SPARE


def _huge_page_bytes() -> int | None:
    """None where the system has no huge pages, or its owner has turned them off."""
    if sys.platform != "linux":
        return None
    try:
        if "[never]" in (_SETTINGS / "enabled").read_text():
            return None
        return int((_SETTINGS / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return None


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return libc


def _in_use(libc: Any, address: int, size: int) -> bool:
    """Whether nearly all of a huge page's memory is there; not, where it is not mapped any more."""
    pages = size // os.sysconf("SC_PAGE_SIZE")
    resident = (ctypes.c_ubyte * pages)()
    return libc.mincore(address, size, resident) == 0 and sum(page & 1 for page in resident) >= _USED * pages


def _mapped() -> Iterator[Range]:
    """This process's memory that is no file's, rising."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(None, 5)
        if fields[1].startswith("rw-p") and (len(fields) < 6 or fields[5] == "[heap]"):
            first, _, last = fields[0].partition("-")
            yield int(first, 16), int(last, 16)


def _without(ranges: Iterable[Range], others: Iterable[Range]) -> Iterator[Range]:
    """What of `ranges` is in none of `others`; both rise and do not overlap."""
    gone = list(others)
    for first, last in ranges:
        for start, end in gone:
            if end <= first or start >= last:
                continue
            if start > first:
                yield first, start
            first = end
        if first < last:
            yield first, last


def _inner(part: Range, size: int) -> Range | None:
    """The whole huge pages within a range."""
    first, last = -(-part[0] // size) * size, part[1] // size * size
    return (first, last) if first < last else None
