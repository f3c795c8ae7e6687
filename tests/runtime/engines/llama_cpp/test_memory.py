from pathlib import Path

import pytest

from sottovoce.engines.llama_cpp.checks import ModelFacts
from sottovoce.engines.llama_cpp.memory import Room, available_bytes, check_memory, needed_bytes
from sottovoce.errors import EngineError

FACTS = ModelFacts("llama", 30, 576, 1536, 9, 8192, 49152, 30 * 3 * 128, None)
ROOM = Room(4096, 256, 32)
MB = 1_000_000


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def test_the_smallest_of_system_and_container_is_what_is_available(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"meminfo": "MemTotal: 4000000 kB\nMemAvailable: 2000000 kB\n"})
    assert available_bytes(proc, tmp_path / "none") == 2_048_000_000
    v2 = {"memory.max": "900000000\n", "memory.current": "500000000\n", "memory.stat": "anon 1\nfile 300000000\n"}
    assert available_bytes(proc, tree(tmp_path / "v2", v2)) == 700_000_000
    v1 = {"memory/memory.limit_in_bytes": "512000000", "memory/memory.usage_in_bytes": "500000000"}
    assert available_bytes(proc, tree(tmp_path / "v1", v1)) == 12_000_000
    cached = tree(tmp_path / "v1", {"memory/memory.stat": "total_cache 400000000\n"})
    assert available_bytes(proc, cached) == 412_000_000


def test_a_container_without_a_limit_and_a_system_without_numbers_are_no_limit(tmp_path: Path) -> None:
    unlimited = tree(tmp_path / "v2", {"memory.max": "max\n", "memory.current": "5\n"})
    assert available_bytes(tmp_path / "none", unlimited) is None
    check_memory(1 << 60, FACTS, ROOM, None)


def test_the_cache_grows_with_the_context_and_is_part_of_what_is_needed() -> None:
    small, large = needed_bytes(0, FACTS, Room(1024, 256, 32)), needed_bytes(0, FACTS, Room(8192, 256, 32))
    assert large - small >= 7168 * FACTS.position_values * 2
    assert needed_bytes(MB, FACTS, ROOM) - needed_bytes(0, FACTS, ROOM) == MB


def test_what_does_not_fit_is_refused_with_both_numbers_and_the_way_out() -> None:
    needed = needed_bytes(90 * MB, FACTS, ROOM)
    check_memory(90 * MB, FACTS, ROOM, needed)
    with pytest.raises(
        EngineError, match=rf"needs about {needed // MB} MB, 94 MB of it for 4096 .* {(needed - 1) // MB} MB are"
    ):
        check_memory(90 * MB, FACTS, ROOM, needed - 1)
