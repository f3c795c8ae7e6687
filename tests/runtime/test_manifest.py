import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.bundle_case import manifest_fields

from sottovoce.errors import BundleError
from sottovoce.manifest import (
    Engine,
    Manifest,
    check_engine_version,
    load_json,
    parse_manifest,
    printable,
    release,
)


def fields(**changes: Any) -> dict[str, Any]:
    files = {"a.bin": {"bytes": 3, "sha256": "0" * 64}}
    return {"format": 1, "files": files, **manifest_fields()} | changes


def parse(value: Any, runtime: str = "0.1.0") -> Manifest:
    return parse_manifest(json.dumps(value).encode(), runtime)


def test_a_manifest_is_read_whole() -> None:
    manifest = parse(fields(audio={"sample_rate": 16000}))
    assert (manifest.task, manifest.family, manifest.precision) == ("transcribe", "whisper", "int8")
    assert manifest.engine == Engine("onnxruntime", "1.21", "2", 21, ())
    assert manifest.source.licence == "MIT" and manifest.source.revision is None
    assert manifest.audio == {"sample_rate": 16000} and manifest.stream == {}
    assert manifest.files["a.bin"].bytes == 3
    assert manifest.target.facts["memory_mb"] == 4096


def test_a_newer_format_names_the_runtime_to_install() -> None:
    with pytest.raises(BundleError, match=r"format 2.*pip install 'sottovoce>=0.7.2'"):
        parse({"format": 2, "requires": {"runtime": "0.7.2"}})


def test_a_bundle_for_a_newer_runtime_names_it_before_anything_else_is_judged() -> None:
    with pytest.raises(BundleError, match=r"installed is 0.1.0: pip install 'sottovoce>=0.2'"):
        parse({"format": 1, "requires": {"runtime": "0.2"}})


def test_an_unknown_optional_key_warns() -> None:
    with pytest.warns(UserWarning, match="'mood'"):
        parse(fields(mood="calm"))


def test_a_known_manifest_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse(fields(required=["files", "task"], stream={"step": 0.5})).stream == {"step": 0.5}


def test_an_unknown_required_key_names_the_runtime_to_install() -> None:
    with pytest.raises(BundleError, match=r"'mood'.*sottovoce>=0.1.0"):
        parse(fields(mood="calm", required=["mood"]))


@pytest.mark.parametrize("key", ["task", "family", "name", "precision", "source", "target", "engine", "files"])
def test_a_missing_key_is_named(key: str) -> None:
    value = fields()
    del value[key]
    with pytest.raises(BundleError, match=rf"{key} is missing"):
        parse(value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": "1"}, "format"),
        ({"format": True}, "format"),
        ({"format": 0}, "format"),
        ({"requires": {"runtime": "1; rm -rf"}}, "requires.runtime"),
        ({"requires": []}, "requires"),
        ({"required": "mood"}, "required"),
        ({"task": 3}, "task"),
        ({"name": ""}, "name"),
        ({"audio": []}, "audio"),
        ({"stream": 0.3}, "stream"),
        ({"engine": {"name": "a b", "min_version": "1"}}, "engine.name"),
        ({"engine": {"name": "x", "min_version": "one"}}, "engine.min_version"),
        ({"engine": {"name": "x", "min_version": "1", "opset": 1.5}}, "engine.opset"),
        ({"engine": {"name": "x", "min_version": "1", "cpu_features": [1]}}, "engine.cpu_features"),
        ({"source": {"spec": "x", "sha256": {"f": 1}}}, "source.sha256.f"),
        ({"files": {"a": {"bytes": -1, "sha256": "0" * 64}}}, "files.a.bytes"),
        ({"files": {"a": {"bytes": True, "sha256": "0" * 64}}}, "files.a.bytes"),
        ({"files": {"a": {"bytes": 1 << 60, "sha256": "0" * 64}}}, "files.a.bytes"),
        ({"files": {"a": {"bytes": 1, "sha256": "0" * 63 + "G"}}}, "files.a.sha256"),
        ({"files": {"a": 1}}, "files.a"),
        ({"files": {"../a": {"bytes": 1, "sha256": "0" * 64}}}, "'../a'"),
        ({"files": {"manifest.json": {"bytes": 1, "sha256": "0" * 64}}}, "manifest.json"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(fields(**change))
    assert named in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b"{} x",
    ],
    ids=range(12),
)
def test_json_that_is_damaged_or_absurd_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"manifest.json"):
        load_json(data, "manifest.json", 1 << 20)


def test_json_beyond_its_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(BundleError, match=r"11 bytes, more than the 10"):
        load_json(b'{"abcd": 1}', "x.json", 10)


@pytest.mark.parametrize("version", ["1.21", "1.21.0", "1.32.1", "1.99.0.dev20260101"])
def test_an_engine_within_the_range_is_accepted(version: str) -> None:
    check_engine_version(Engine("onnxruntime", "1.21", "2", 21, ()), version)


@pytest.mark.parametrize("version", ["1.20.1", "1.9", "2.0.0", "2.1", "unknown"])
def test_an_engine_outside_the_range_is_refused_with_range_and_version(version: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_engine_version(Engine("onnxruntime", "1.21", "2", 21, ()), version)
    assert "onnxruntime>=1.21,<2" in str(caught.value) and version in str(caught.value)


def test_versions_compare_by_number() -> None:
    assert release("1.9") < release("1.10.0") == release("1.10") == release("1.10.0+cpu")


def test_text_from_a_bundle_cannot_drive_the_terminal() -> None:
    assert "\x1b" not in printable("\x1b[31mred") and len(printable("x" * 999, 10)) == 10


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(sorted(fields())), value=json_values, inner=st.text(max_size=8) | st.just("bytes"))
def test_only_bundle_errors_come_out_of_a_strange_manifest(key: str, value: Any, inner: str) -> None:
    strange = fields()
    if isinstance(strange[key], dict) and len(inner) % 2:
        strange[key] = strange[key] | {inner: value}
    else:
        strange[key] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parse(strange)
        except BundleError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=60))
def test_only_bundle_errors_come_out_of_random_bytes(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(data, "0.1.0")
