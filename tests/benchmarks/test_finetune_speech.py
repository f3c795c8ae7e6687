import argparse
import json
from pathlib import Path

import finetune_speech
import pytest

from sottovoce_compiler.report.score import ErrorCounts


def test_each_recording_is_held_out_once_and_the_seed_decides_where() -> None:
    parts = finetune_speech.folds(70, 5, seed=1)
    assert sorted(at for part in parts for at in part) == list(range(70))
    assert {len(part) for part in parts} == {14}
    assert parts == finetune_speech.folds(70, 5, seed=1) != finetune_speech.folds(70, 5, seed=2)


def test_errors_of_all_folds_are_added_up_not_averaged() -> None:
    def fold(before: int, after: int, words: int) -> finetune_speech.Fold:
        return finetune_speech.Fold(
            (ErrorCounts(before, 0, 0, words), ErrorCounts(0, after, 0, words)),
            (ErrorCounts(1, 0, 0, 50), ErrorCounts(2, 0, 0, 50)),
            seconds=10.0,
        )

    table = finetune_speech._table("model", [fold(9, 4, 100), fold(1, 1, 20)])
    assert "| held-out folds, of 120 words | 10 | 5 |" in table
    assert "| general, of 100 words | 2 | 4 |" in table


def test_the_page_has_what_was_run_with_which_settings_and_every_fold(tmp_path: Path) -> None:
    (tmp_path / "gentle.toml").write_text("strength = 0.7\n")
    about = {"cpu": "X", "cpu_family_model": "1/2", "cores": 2, "system": "Linux x86_64", "python": "3.11"}
    one = {"words": 100, "base": 9, "adapted": 4}
    other = {"words": 50, "base": 1, "adapted": 2}
    folds = [{"held": one, "general": other, "seconds": 3.0}] * 2
    result = {"machine": about, "date": "2026-01-01", "command": "python x", "folds": folds}
    page = finetune_speech._page(result, argparse.Namespace(config=tmp_path / "gentle.toml"), "| a table |")
    assert "    python x\n" in page and "strength = 0.7" in page and "| a table |" in page
    assert page.endswith("| 0 | 9 | 4 | 100 | 1 | 2 | 50 |\n| 1 | 9 | 4 | 100 | 1 | 2 | 50 |\n")


def test_only_spoken_english_that_is_heard_in_one_piece_is_used(tmp_path: Path) -> None:
    lines = [
        {"file": "a.wav", "text": "hi", "language": "en", "seconds": 2.0, "kind": "read"},
        {"file": "b.wav", "text": "hallo", "language": "de", "seconds": 2.0, "kind": "read"},
        {"file": "c.wav", "text": "long", "language": "en", "seconds": 341.0, "kind": "long"},
        {"file": "d.wav", "text": "", "language": "en", "seconds": 2.0, "kind": "noise"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert [Path(line["file"]) for line in finetune_speech._lines(tmp_path / "m.jsonl")] == [tmp_path / "a.wav"]


def test_a_kind_to_learn_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        finetune_speech.main(["whisper-base", "--data", "m.jsonl"])
    assert "--kind" in capsys.readouterr().err
