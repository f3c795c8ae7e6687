"""Files leave the page cache, and nothing of them is lost."""

from pathlib import Path

from cached_files import forget


def test_what_was_just_written_is_on_the_disk_and_still_there(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    files = [tmp_path / "one", tmp_path / "folder" / "two", tmp_path / "folder" / "deep" / "three"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 10_000)
    forget(files[0], tmp_path / "folder")
    assert [file.read_bytes() for file in files] == [bytes([number]) * 10_000 for number in range(3)]
