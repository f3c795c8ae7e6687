"""One flipped bit anywhere, and anything hypothesis thinks of: found, and as nothing but a BundleError."""

import random
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.bundle_case import FILES, make_bundle

from sottovoce.bundle import open_bundle
from sottovoce.errors import BundleError

SMALL = {"tokens.bin": bytes(range(64)), "report.json": b"{}\n"}


def is_found(path: Path) -> bool:
    """Whether the damage is noticed: at opening, or by checking the files, which names one."""
    try:
        return bool(open_bundle(path).check_all())
    except BundleError as error:
        assert "\n" not in str(error)
        return True


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (value,) = file.read(1)
        file.seek(at)
        file.write(bytes([value ^ 1 << bit]))


def test_a_flipped_bit_anywhere_in_the_zip_is_found(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano.svb", SMALL)
    chance = random.Random(1)
    for at in range(path.stat().st_size):
        bit = chance.randrange(8)
        flip(path, at, bit)
        assert is_found(path), f"byte {at}, bit {bit}"
        flip(path, at, bit)
    assert not is_found(path)


def test_a_flipped_bit_anywhere_in_a_folder_is_found(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano", SMALL)
    chance = random.Random(2)
    for file in [file for file in path.rglob("*") if file.is_file()]:
        for at in range(file.stat().st_size):
            bit = chance.randrange(8)
            flip(file, at, bit)
            assert is_found(path), f"{file.name}, byte {at}, bit {bit}"
            flip(file, at, bit)
    assert not is_found(path)


def test_all_eight_bits_of_the_manifest_and_its_digest_are_guarded(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano", SMALL)
    for name in ("manifest.json", "manifest.sha256"):
        for at in range(0, (path / name).stat().st_size, 5):
            for bit in range(8):
                flip(path / name, at, bit)
                with pytest.raises(BundleError, match=r"damaged"):
                    open_bundle(path)
                flip(path / name, at, bit)


@pytest.fixture(scope="module")
def bundles() -> Iterator[dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        yield {"svb": make_bundle(Path(folder) / "nano.svb").read_bytes()}


edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 6)), min_size=1)


@settings(max_examples=60, deadline=None)
@given(edits=edits, cut=st.floats(0, 1))
def test_only_bundle_errors_come_out_of_an_edited_zip(
    bundles: dict[str, bytes], edits: list[tuple[float, bytes, int]], cut: float
) -> None:
    data = bundles["svb"]
    for where, new, removed in edits:
        at = int(where * len(data))
        data = data[:at] + new + data[at + removed :]
    data = data[: int(cut * len(data)) + 1] if cut < 0.5 else data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.svb"
        path.write_bytes(data)
        assert is_found(path) == (data != bundles["svb"])


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["manifest.json", "manifest.sha256", *FILES]),
    content=st.binary(max_size=300) | st.none(),
)
def test_only_bundle_errors_come_out_of_an_edited_folder(name: str, content: bytes | None) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = make_bundle(Path(folder) / "nano")
        file = path / name
        same = file.read_bytes() == content
        file.unlink()
        if content is None:
            file.mkdir()
        else:
            file.write_bytes(content)
        assert is_found(path) == (not same)
        shutil.rmtree(path)
