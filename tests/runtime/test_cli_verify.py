"""`sottovoce verify`: what is printed and which exit code, whatever the checks say."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sottovoce.cli import main
from sottovoce.errors import BundleError, EngineError


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], str]:
    """Makes a bundle's path, for which the checks give a result or raise."""

    def make(outcome: Any) -> str:
        def verify(path: Path) -> Any:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setitem(sys.modules, "sottovoce.golden", SimpleNamespace(verify=verify))
        path = tmp_path / "b.svb"
        path.write_bytes(b"x")
        return str(path)

    return make


def result(checks: list[str], failures: list[str]) -> SimpleNamespace:
    return SimpleNamespace(ok=not failures, failures=failures, checks=checks)


Capture = pytest.CaptureFixture[str]


def test_a_sound_bundle_lists_its_checks_and_is_exit_code_0(checks: Callable[[Any], str], capsys: Capture) -> None:
    assert main(["verify", checks(result(["checksums", "golden case 0"], []))]) == 0
    assert capsys.readouterr().out == "ok      checksums\nok      golden case 0\n"


def test_a_failure_is_named_and_is_exit_code_1(checks: Callable[[Any], str], capsys: Capture) -> None:
    assert main(["verify", checks(result(["checksums"], ["golden case 0: 'b', expected 'a'"]))]) == 1
    assert capsys.readouterr().out == "ok      checksums\nFAILED  golden case 0: 'b', expected 'a'\n"


def test_a_check_that_failed_is_not_also_listed_as_ok(checks: Callable[[Any], str], capsys: Capture) -> None:
    assert main(["verify", checks(result(["checksums", "golden"], ["golden"]))]) == 1
    assert capsys.readouterr().out == "ok      checksums\nFAILED  golden\n"


def test_a_bundle_too_damaged_to_open_is_a_failure_and_not_bad_usage(
    checks: Callable[[Any], str], capsys: Capture
) -> None:
    assert main(["verify", checks(BundleError("b.svb: not a zip file"))]) == 1
    assert capsys.readouterr().out == "FAILED  b.svb: not a zip file\n"


def test_a_failure_without_a_name_is_still_a_failure(checks: Callable[[Any], str]) -> None:
    assert main(["verify", checks(SimpleNamespace(ok=False, failures=[], checks=["a"]))]) == 1


def test_json_has_ok_and_failures(checks: Callable[[Any], str], capsys: Capture) -> None:
    assert main(["verify", "--json", checks(result(["a"], ["b"]))]) == 1
    assert json.loads(capsys.readouterr().out) == {"ok": False, "failures": ["b"], "checks": ["a"]}
    assert main(["verify", "--json", checks(BundleError("no"))]) == 1
    assert json.loads(capsys.readouterr().out)["failures"] == ["no"]


def test_a_path_with_nothing_there_is_exit_code_2(capsys: Capture) -> None:
    assert main(["verify", "gone.svb"]) == 2
    assert tuple(capsys.readouterr()) == ("", "sottovoce: error: gone.svb: no such bundle\n")


def test_an_engine_that_breaks_off_is_exit_code_1(checks: Callable[[Any], str], capsys: Capture) -> None:
    assert main(["verify", checks(EngineError("out of memory"))]) == 1
    assert capsys.readouterr().err == "sottovoce: error: out of memory\n"
