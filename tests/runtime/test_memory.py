from pathlib import Path

from sottovoce.memory import available_bytes


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
