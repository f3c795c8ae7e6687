from pathlib import Path
from typing import Any

import pytest

from sottovoce.errors import BundleError, InputError
from sottovoce_compiler.memory import neighbour
from sottovoce_compiler.memory.neighbour import read_neighbour


def reported(monkeypatch: pytest.MonkeyPatch, report: Any) -> None:
    class Bundle:
        def report(self) -> Any:
            return report

    monkeypatch.setattr(neighbour, "open_bundle", lambda path: Bundle())


def test_a_bundle_says_what_it_takes_and_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    reported(monkeypatch, {"memory": {"with_imports_mb": 250.5, "imports": {"python": 20, "llama.cpp": 15.5}}})
    found = read_neighbour(Path("dir/chat.svb"))
    assert (found.name, found.most, found.above_imports) == ("chat.svb", 250_500_000, 215_000_000)
    assert found.imports == {"python": 20_000_000, "llama.cpp": 15_500_000}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({}, "its report predicts no memory; compile it again"),
        ({"memory": None}, "predicts no memory"),
        ({"memory": {"with_imports_mb": 3.0, "imports": []}}, "predicts no memory"),
        ({"memory": {"not_predicted": "was not measured"}}, "the memory of its format is not predicted"),
        ({"memory": {"imports": {}}}, "has None MB of memory"),
        ({"memory": {"with_imports_mb": True, "imports": {}}}, "has True MB"),
        ({"memory": {"with_imports_mb": float("nan"), "imports": {}}}, "has nan MB"),
        ({"memory": {"with_imports_mb": -1, "imports": {}}}, "has -1 MB of memory; 0 to"),
        ({"memory": {"with_imports_mb": 10, "imports": {"python": "x" * 1000}}}, "has 'xxx"),
        ({"memory": {"with_imports_mb": 1e300, "imports": {}}}, r"has 1e\+300 MB of memory; 0 to"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(report: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reported(monkeypatch, report)
    with pytest.raises(InputError, match=said) as caught:
        read_neighbour(Path("x.svb"))
    assert len(str(caught.value)) < 200


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        read_neighbour(tmp_path / "none.svb")
