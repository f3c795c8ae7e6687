import json
import os
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.bundle_case import FILES, REPORT, make_bundle

from sottovoce import bundle as bundle_module
from sottovoce.bundle import open_bundle
from sottovoce.cpu import Cpu
from sottovoce.errors import BundleError

X86 = Cpu("x86", frozenset({"avx2", "fma"}))
PI_4 = Cpu("arm", frozenset({"asimd", "fp"}))


@pytest.fixture(params=["nano.svb", "nano"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_bundle(tmp_path / request.param)


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Changes the manifest of a folder bundle and its digest with it, as an attacker would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    data = json.dumps(manifest | changes).encode()
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sha256").write_text(sha256(data).hexdigest() + "\n", newline="\n")


def test_every_file_is_read_as_it_was_written(path: Path) -> None:
    bundle = open_bundle(path)
    assert {name: bundle.read(name) for name in bundle.manifest.files} == FILES
    assert bundle.report() == REPORT
    assert bundle.check_all() == []


def test_a_located_file_is_where_the_bundle_says(path: Path) -> None:
    bundle = open_bundle(str(path))
    for name, content in FILES.items():
        found = bundle.locate(name)
        assert found.path.read_bytes()[found.offset :][: found.size] == content
        assert found.path.is_relative_to(bundle.folder)


def test_a_bundle_opened_by_a_relative_path_outlives_a_change_of_folder(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = open_bundle(path.name)
    monkeypatch.chdir("/")
    assert bundle.read("tokens.bin") == FILES["tokens.bin"]


def test_a_bundle_without_a_report_has_an_empty_one(tmp_path: Path) -> None:
    assert open_bundle(make_bundle(tmp_path / "x.svb", {"a.bin": b"a"})).report() == {}


def test_a_file_the_manifest_does_not_name_is_not_read(path: Path) -> None:
    bundle = open_bundle(path)
    for name in ["nothing.bin", "../secret", "/etc/passwd", "manifest.json"]:
        with pytest.raises(BundleError, match="has no file"):
            bundle.read(name)


def test_a_file_damaged_after_opening_is_reported_with_both_digests(path: Path) -> None:
    bundle = open_bundle(path)
    found = bundle.locate("tokens.bin")
    with found.path.open("r+b") as file:
        file.seek(found.offset + 7)
        file.write(b"\xff")
    for action in (bundle.read, bundle.check_file):
        with pytest.raises(BundleError, match=r"tokens.bin is damaged") as caught:
            action("tokens.bin")
        assert bundle.manifest.files["tokens.bin"].sha256 in str(caught.value)
        assert str(path) in str(caught.value)
    assert len(bundle.check_all()) == 1


def test_a_file_cut_short_after_opening_is_reported(path: Path) -> None:
    bundle = open_bundle(path)
    found = bundle.locate("tokens.bin")
    os.truncate(found.path, found.offset + 100)
    with pytest.raises(BundleError, match=r"cut short: 156 of 256"):
        bundle.check_file("tokens.bin")
    with pytest.raises(BundleError, match="damaged"):
        bundle.read("tokens.bin")
    assert bundle.check_all()


def test_a_bundle_removed_after_opening_is_reported(path: Path) -> None:
    bundle = open_bundle(path)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(BundleError, match="No such file"):
        bundle.check_file("tokens.bin")
    assert "no such bundle" in bundle.check_all()[0]


def test_a_large_file_is_checked_in_small_pieces(tmp_path: Path) -> None:
    content = os.urandom(bundle_module.CHUNK * 2 + 5)
    bundle = open_bundle(make_bundle(tmp_path / "x.svb", {"weights.bin": content}))
    bundle.check_file("weights.bin")
    thread = threading.Thread(target=bundle.check_file, args=("weights.bin",))
    thread.start()
    bundle.check_file("weights.bin")
    thread.join()


def test_a_file_too_large_to_hold_is_not_read_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "MAX_READ", 255)
    with pytest.raises(BundleError, match=r"256 bytes, too many to read whole \(limit 255\)"):
        open_bundle(path).read("tokens.bin")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.svb", None, "no such bundle"),
        ("empty.svb", b"", "0 bytes are too few"),
        ("noise.svb", b"x" * 5000, "not a zip"),
        ("file.wav/x", None, "no such bundle|Not a directory"),
        ("a\0b", None, "not a usable path"),
        ("x" * 300, None, "name too long"),
    ],
)
def test_what_is_no_bundle_gets_one_line_that_names_it(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file.wav").touch()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(tmp_path / name)
    assert name[:1] in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipe_or_a_device_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.svb")
    for path in (tmp_path / "pipe.svb", Path(os.devnull)):
        with pytest.raises(BundleError, match="not a regular file"):
            open_bundle(path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest.json is missing"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "tokens.bin", "golden/case-0.json"])
def test_a_missing_file_of_a_folder_is_named(name: str, tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(path)


def test_a_file_of_another_length_is_named_with_both(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    (path / "tokens.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"tokens.bin is damaged: it has 1 bytes, expected 256"):
        open_bundle(path)


def test_a_link_that_leaves_the_folder_is_refused_and_one_that_stays_is_followed(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    (path / "tokens.bin").rename(path / "other.bin")
    (path / "tokens.bin").symlink_to("other.bin")
    assert open_bundle(path).read("tokens.bin") == FILES["tokens.bin"]
    (path / "other.bin").rename(tmp_path / "outside.bin")
    (path / "tokens.bin").unlink()
    (path / "tokens.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(BundleError, match=r"tokens.bin is a link that leaves the bundle"):
        open_bundle(path)


def test_a_linked_subfolder_that_leaves_and_a_loop_of_links_are_refused(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    (path / "golden").rename(tmp_path / "golden")
    (path / "golden").symlink_to(tmp_path / "golden")
    with pytest.raises(BundleError, match="leaves the bundle"):
        open_bundle(path)
    (path / "golden").unlink()
    (path / "golden").symlink_to("golden")
    with pytest.raises(BundleError):
        open_bundle(path)


def test_a_pipe_in_a_folder_is_refused(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    (path / "empty.bin").unlink()
    os.mkfifo(path / "empty.bin")
    with pytest.raises(BundleError, match=r"empty.bin is not a regular file"):
        open_bundle(path)


def test_a_bundle_reached_through_a_link_is_located_at_its_real_place(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.svb"
    link.symlink_to(path.name)
    assert open_bundle(link).locate("tokens.bin") == open_bundle(path).locate("tokens.bin")


def test_a_name_that_leads_out_of_a_folder_is_refused_even_with_a_valid_digest(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    secret = b"secret"
    (tmp_path / "secret").write_bytes(secret)
    for name in ("../secret", str(tmp_path / "secret")):
        rewrite_manifest(path, files={name: {"bytes": 6, "sha256": sha256(secret).hexdigest()}})
        with pytest.raises(BundleError, match="is not allowed"):
            open_bundle(path)


def test_an_absurd_size_is_refused_even_with_a_valid_digest(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "nano")
    for size in (1 << 43, 1 << 62, 10**30):
        rewrite_manifest(path, files={"tokens.bin": {"bytes": size, "sha256": "0" * 64}})
        with pytest.raises(BundleError, match=r"tokens.bin"):
            open_bundle(path)


def test_an_engine_outside_its_range_is_refused(path: Path) -> None:
    bundle = open_bundle(path)
    assert bundle.check_runtime("1.32.0", cpu=X86) == []
    with pytest.raises(BundleError, match=r"onnxruntime>=1.21,<2, installed is 1.20.1: pip install"):
        bundle.check_runtime("1.20.1", cpu=X86)


def test_an_older_runtime_is_told_what_to_install(path: Path) -> None:
    with pytest.raises(BundleError, match=r"pip install 'sottovoce>=0.1.0'"):
        open_bundle(path).check_runtime("1.32.0", runtime_version="0.0.9", cpu=X86)


def test_a_missing_processor_feature_names_it_and_the_target_to_compile_for(tmp_path: Path) -> None:
    engine = {"name": "onnxruntime", "min_version": "1.21", "cpu_features": ["asimd", "asimddp"]}
    bundle = open_bundle(make_bundle(tmp_path / "x.svb", engine=engine, target={"name": "raspberry-pi-5"}))
    with pytest.raises(BundleError, match=r"processor with asimddp: .*--target raspberry-pi-4"):
        bundle.check_runtime("1.32.0", cpu=PI_4)
    assert bundle.check_runtime("1.32.0", cpu=Cpu("arm", frozenset({"asimd", "asimddp"}))) == []


def test_another_kind_of_processor_and_an_unknown_one_are_notes_and_no_failure(tmp_path: Path) -> None:
    engine = {"name": "onnxruntime", "min_version": "1.21", "cpu_features": ["asimddp"]}
    bundle = open_bundle(make_bundle(tmp_path / "x.svb", engine=engine, target={"name": "raspberry-pi-5"}))
    assert "made for raspberry-pi-5" in bundle.check_runtime("1.32.0", cpu=X86)[0]
    assert "cannot tell" in bundle.check_runtime("1.32.0", cpu=Cpu("arm", None))[0]


def test_an_engine_that_is_not_installed_is_named(tmp_path: Path) -> None:
    engine = {"name": "no-such-engine", "min_version": "1"}
    bundle = open_bundle(make_bundle(tmp_path / "x.svb", engine=engine))
    with pytest.raises(BundleError, match="needs no-such-engine, which is not installed"):
        bundle.check_runtime(cpu=X86)


def test_the_installed_engine_is_found_without_being_told(path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert open_bundle(path).check_runtime(cpu=X86) == []


def test_opening_a_bundle_imports_no_array_library(path: Path) -> None:
    code = "import sys; from sottovoce.bundle import open_bundle; open_bundle(sys.argv[1]).check_all()\n"
    code += "assert not {'numpy', 'onnxruntime', 'zipfile'} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, path], env=environment, check=True)
