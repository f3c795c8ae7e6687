import argparse
import json
from pathlib import Path

import pytest
from tests.runtime.bundle_case import FILES, REPORT, make_bundle

from sottovoce.bundle import open_bundle
from sottovoce.cli import inspect
from sottovoce.errors import BundleError


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    assert inspect.run(parser.parse_args(arguments)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def report_bundle(path: Path, report: object) -> Path:
    return make_bundle(path, {"report.json": json.dumps(report).encode()})


@pytest.mark.parametrize("name", ["nano.svb", "nano"])
def test_json_is_one_object_with_the_manifest_and_the_report(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_bundle(tmp_path / name)
    found = json.loads(run(capsys, str(path), "--json"))
    assert found.keys() == {"path", "bytes", "manifest", "report"}
    assert found["manifest"] == open_bundle(path).manifest.raw and found["report"] == REPORT
    assert found["bytes"] == open_bundle(path).size


def test_people_see_who_made_it_for_what_and_how_good_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_bundle(Path("nano.svb"))
    out = run(capsys, "nano.svb")
    for text in [
        "whisper-nano",
        "MIT",
        "linux-x86-64",
        "onnxruntime 1.21 or newer, below 2",
        "opset 21",
        *FILES,
    ]:
        assert text in out
    lines = out.splitlines()
    assert ["wer", "0.0512", "0.0524"] in [line.split() for line in lines]
    assert "123,456,789" in out
    assert max(map(len, lines)) <= 80


def test_a_report_of_any_shape_is_shown_within_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = {
        "novel": {
            "deep": {"er": [1, 2.5, None, True]},
            "rows": [{"a": 1}, {"b": "x " * 200}],
            "none": {},
            "empty": [{}, {}],
        },
        "list": [[1], {"a": 2}],
        "text": "word " * 60,
        "parts": {"a very long name of a part": {"x": "y" * 30}, "b": {"x": 1}},
        "uneven": {"a": {"x": 1}, "b": 3},
        "key " * 40: {"sub " * 40: 1},
    }
    out = run(capsys, str(report_bundle(tmp_path / "x.svb", report)))
    assert "2.5, -, yes" in out and "Uneven" in out
    too_long = [line for line in out.split("\nReport\n")[1].splitlines() if len(line) > 80]
    assert all("key" in line.lower() or "sub" in line for line in too_long)  # names are cut at 120, and not wrapped


def test_rows_with_the_same_keys_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"what": "wer", "limit": 0.5}, {"what": "invented words", "limit": 0}]
    out = run(capsys, str(report_bundle(tmp_path / "x.svb", {"gate": {"rows": rows}})))
    assert "    what            limit\n    wer               0.5\n    invented words      0\n" in out


def test_a_bundle_without_a_report_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Report\n  none" in run(capsys, str(make_bundle(tmp_path / "x.svb", {"a.bin": b""})))


def test_text_in_a_bundle_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_bundle(
        tmp_path / "x.svb", {"report.json": b'{"a\\u001b[2J": {"\\u001b": "\\u001b[31m\\r"}}'}, name="\x1bc"
    )
    assert not set("\x1b\r") & set(run(capsys, str(path)))


def test_a_damaged_report_is_an_error_and_not_half_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_bundle(tmp_path / "nano")
    (path / "report.json").write_bytes(FILES["report.json"].replace(b"1", b"2"))
    with pytest.raises(BundleError, match=r"report.json is damaged"):
        run(capsys, str(path))
    assert capsys.readouterr().out == ""
