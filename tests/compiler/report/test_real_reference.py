from pathlib import Path

import pytest

from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.source import evaluate_source
from sottovoce_compiler.sources import resolve

pytestmark = pytest.mark.weights


def test_the_built_in_set_is_the_one_that_reports_name() -> None:
    dataset = builtin_set()
    assert dataset.name == "sottovoce-builtin-1"
    assert dataset.sha256 == "fb2e5aeb0a8f52b469a701498f6b285355fa40fb8e3bf46f176f295b06590dae"


def test_the_source_knows_the_opening_of_a_tale_of_two_cities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, checkpoint = builtin_set(), resolve("whisper-tiny.en")
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path))  # measured now, whatever was measured before
    scores = evaluate_source(checkpoint, dataset).scores
    assert scores.words.reference == 131 and scores.words.errors <= 4
    assert scores.invented <= 3
