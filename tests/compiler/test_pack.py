import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.bundle_case import FILES, make_bundle, manifest_fields

import sottovoce_compiler.pack as pack
from sottovoce.archive import ALIGNMENT
from sottovoce.bundle import open_bundle
from sottovoce.errors import BundleError, InputError, SottovoceError
from sottovoce_compiler.pack import canonical_json, write_bundle
from sottovoce_compiler.staging import workspace


@pytest.fixture(params=["nano.svb", "nano"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def contents(path: Path) -> dict[str, bytes]:
    """Every file below `path` by its relative name, hidden ones included; the file alone when it is one."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def environment() -> dict[str, str]:
    """For a second Python that is to find the same modules as this one."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_the_same_content_gives_the_same_bytes_whatever_the_order_and_the_source(path: Path, tmp_path: Path) -> None:
    write_bundle(path, manifest_fields(), FILES)
    first = contents(path)
    sources: dict[str, bytes | Path] = {}
    for index, (name, content) in enumerate(reversed(FILES.items())):
        file = tmp_path / f"source-{index}"
        file.write_bytes(content)
        sources[name] = file
    write_bundle(path, dict(reversed(manifest_fields().items())), sources)
    assert contents(path) == first


def test_the_manifest_names_every_other_file_with_its_size_and_digest(path: Path) -> None:
    write_bundle(path, manifest_fields(), FILES)
    if path.is_dir():
        found = contents(path)
    else:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert archive.namelist()[0] == "manifest.json"
            found = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(found["manifest.json"])
    assert manifest["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in FILES.items()
    }
    assert found["manifest.sha256"].decode() == hashlib.sha256(found["manifest.json"]).hexdigest() + "\n"
    assert found == FILES | {name: found[name] for name in ("manifest.json", "manifest.sha256")}
    assert found["manifest.json"] == canonical_json(manifest)


def test_json_is_written_in_one_way() -> None:
    assert canonical_json({"b": [1], "a": "é"}) == '{\n "a": "é",\n "b": [\n  1\n ]\n}\n'.encode()
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


def test_every_file_of_a_zip_begins_at_an_aligned_offset(tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "x.svb"))
    assert all(bundle.locate(name).offset % ALIGNMENT == 0 for name in bundle.manifest.files)


def test_an_existing_bundle_is_replaced_whole(path: Path) -> None:
    write_bundle(path, manifest_fields(), FILES)
    write_bundle(path, manifest_fields(name="other"), {"a.bin": b"a"})
    bundle = open_bundle(path)
    assert bundle.manifest.name == "other" and bundle.check_all() == []
    assert names(path.parent) == [path.name]
    if path.is_dir():
        assert sorted(contents(path)) == ["a.bin", "manifest.json", "manifest.sha256"]


def test_a_damaged_bundle_is_replaced(path: Path) -> None:
    write_bundle(path, manifest_fields(), FILES)
    damaged = path / "tokens.bin" if path.is_dir() else path
    damaged.write_bytes(b"")
    write_bundle(path, manifest_fields(), FILES)
    assert open_bundle(path).check_all() == []


def test_a_link_to_a_bundle_is_followed(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / path.name
    real.parent.mkdir()
    path.symlink_to(real)
    assert write_bundle(path, manifest_fields(), FILES) == real
    assert path.is_symlink() and open_bundle(path).check_all() == []


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    assert open_bundle(make_bundle(tmp_path / ("x" * 251 + ".svb"))).check_all() == []


def test_a_missing_parent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*nowhere; create it first"):
        make_bundle(tmp_path / "nowhere" / "x.svb")


def test_a_parent_that_may_not_be_written_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="no permission to write in"):
        write_bundle(path, manifest_fields(), FILES)


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    before = contents(folder)
    with pytest.raises(InputError, match="is a folder and not a bundle"):
        make_bundle(folder)
    with pytest.raises(InputError):
        make_bundle(tmp_path)
    assert contents(folder) == before and names(tmp_path) == ["photos"]


def test_a_bundle_folder_that_holds_something_else_too_is_left_alone(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    (path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes.txt'"):
        make_bundle(path)
    assert (path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_may_become_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    assert open_bundle(make_bundle(tmp_path / "nano")).check_all() == []


def test_neither_form_takes_the_place_of_the_other(tmp_path: Path) -> None:
    (tmp_path / "x.svb").mkdir()
    (tmp_path / "y").write_bytes(b"mine")
    with pytest.raises(InputError, match="is not a file"):
        make_bundle(tmp_path / "x.svb")
    with pytest.raises(InputError, match=r"end the name in \.svb"):
        make_bundle(tmp_path / "y")
    with pytest.raises(InputError, match="not a folder"):
        make_bundle(Path(os.devnull))
    assert (tmp_path / "y").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../a", "/a", "a b", "manifest.json", "manifest.sha256", "A.bin"])
def test_a_file_name_that_the_runtime_would_refuse_is_not_written(name: str, path: Path) -> None:
    with pytest.raises(BundleError):
        write_bundle(path, manifest_fields(), {"a.bin": b"", name: b""})
    assert names(path.parent) == []


def test_a_manifest_that_the_runtime_would_refuse_is_not_written(path: Path) -> None:
    with pytest.raises(BundleError, match="task"):
        write_bundle(path, manifest_fields(task=None), FILES)
    with pytest.raises(InputError, match="'files'"):
        write_bundle(path, manifest_fields(files={}), FILES)
    assert names(path.parent) == []


def test_a_missing_source_file_is_named_and_nothing_is_left(path: Path) -> None:
    with pytest.raises(SottovoceError, match=r"No such file or directory \(.*gone.bin\)"):
        write_bundle(path, manifest_fields(), {"a.bin": path.parent / "gone.bin"})
    assert names(path.parent) == []


def test_a_source_that_changes_while_it_is_packed_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "_size", lambda source: len(source) + 1)
    with pytest.raises(SottovoceError, match="changed while it was packed"):
        write_bundle(path, manifest_fields(), FILES)
    assert names(path.parent) == []


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_whatever_breaks_off_the_writing_leaves_what_was_there_before_and_nothing_else(
    stop: BaseException, after: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(path, manifest_fields(), FILES)
    before = contents(path)
    whole, calls = pack._chunks, iter(range(100))

    def chunks(source: bytes | Path) -> Iterator[bytes]:
        if next(calls) >= after:
            raise stop
        yield from whole(source)

    monkeypatch.setattr(pack, "_chunks", chunks)
    expected = SottovoceError if isinstance(stop, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_bundle(path, manifest_fields(name="other"), FILES)
    if isinstance(stop, OSError):
        assert "No space left on device; nothing is left of it" in str(caught.value)
    assert contents(path) == before and names(path.parent) == [path.name]


def test_a_full_disk_on_the_way_to_a_bundle_is_told_with_its_name(path: Path) -> None:
    with pytest.raises(SottovoceError, match=f"{path.name} was not written: No space left"), workspace(path) as work:
        (work / "weights.bin").touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(path.parent) == []


def test_a_move_that_fails_puts_the_old_bundle_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(path, manifest_fields(), FILES)
    before, real = contents(path), os.rename

    def refuse(source: Any, target: Any) -> None:
        if str(source).endswith(".new"):
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(SottovoceError, match="Input/output error"):
        write_bundle(path, manifest_fields(name="other"), FILES)
    assert contents(path) == before and names(path.parent) == [path.name]


FULL = """
import resource, sys
from tests.runtime.bundle_case import make_bundle
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    make_bundle(sys.argv[1], {"weights.bin": bytes(100_000)})
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_real_limit_of_the_system_leaves_nothing(path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("SottovoceError") and "File too large" in done.stdout
    assert names(path.parent) == []


WAITING = """
import sys, time
from pathlib import Path
import sottovoce_compiler.pack as pack
from tests.runtime.bundle_case import make_bundle
def chunks(source):
    print("writing", flush=True)
    time.sleep(60)
pack._chunks = chunks
make_bundle(Path(sys.argv[1]))
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WAITING, str(path)]
    writer = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    return writer


def test_what_a_killed_writer_leaves_is_hidden_and_the_next_one_removes_it(path: Path) -> None:
    write_bundle(path, manifest_fields(), FILES)
    before = contents(path)
    writer = start_writer(path)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    left = [name for name in names(path.parent) if name != path.name]
    assert len(left) == 1 and left[0].startswith(".sottovoce-")
    assert contents(path) == before
    write_bundle(path.with_name("another.svb"), manifest_fields(), FILES)
    assert left[0] in names(path.parent)
    write_bundle(path, manifest_fields(), FILES)
    assert names(path.parent) == sorted([path.name, "another.svb"])


def test_what_a_living_writer_is_writing_is_not_removed(path: Path) -> None:
    writer = start_writer(path)
    write_bundle(path, manifest_fields(), FILES)
    assert len(names(path.parent)) == 2
    writer.kill()
    writer.wait()
    time.sleep(0.05)
    write_bundle(path, manifest_fields(), FILES)
    assert names(path.parent) == [path.name]


def test_a_bundle_that_a_killed_writer_had_moved_aside_comes_back(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    writer = start_writer(path)
    writer.kill()
    writer.wait()
    (hidden,) = [name for name in names(tmp_path) if name != "nano"]
    path.rename(tmp_path / hidden.replace(".new", ".old"))
    with pytest.raises(SottovoceError):
        write_bundle(path, manifest_fields(), {"a.bin": tmp_path / "gone.bin"})
    with pytest.raises(InputError):
        write_bundle(path, manifest_fields(files={}), FILES)
    write_bundle(path, manifest_fields(name="other"), FILES)
    assert names(tmp_path) == ["nano"] and open_bundle(path).manifest.name == "other"


def test_a_large_file_is_streamed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "weights"
    source.write_bytes(os.urandom(pack.CHUNK * 2 + 3))
    sizes: list[int] = []
    whole = pack._chunks

    def chunks(item: bytes | Path) -> Iterator[bytes]:
        for chunk in whole(item):
            sizes.append(len(chunk))
            yield chunk

    monkeypatch.setattr(pack, "_chunks", chunks)
    write_bundle(path, manifest_fields(), {"weights.bin": source})
    assert max(sizes) <= pack.CHUNK
    assert open_bundle(path).read("weights.bin") == source.read_bytes()


def test_the_files_can_be_read_by_others(path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_bundle(path, manifest_fields(), FILES)
    finally:
        os.umask(mask)
    assert all(item.stat().st_mode & 0o044 == 0o044 for item in [path, *path.rglob("*")])
