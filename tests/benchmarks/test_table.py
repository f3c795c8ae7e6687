"""The Markdown page: ratios, goals, and what happens where a figure is missing."""

from pathlib import Path
from typing import Any

from machine import command_line
from table import render


def system(clip_s: float, errors: int, invented: int = 0) -> dict[str, Any]:
    score = {"rate": errors / 100, "substitutions": errors, "deletions": 0, "insertions": 0, "reference": 100}
    return {
        "about": {"version": "1"},
        "bytes": 40_000_000,
        "clip": {"median_s": clip_s, "min_s": clip_s},
        "scores": {"english": score},
        "invented": {"words": invented},
    }


def page(**systems: dict[str, Any]) -> str:
    machine = {
        "cpu": "A processor",
        "cpu_family_model": "1/2",
        "cores": 2,
        "flags": ["avx2"],
        "system": "Linux",
        "python": "3.11",
        "load_average_before": 0.0,
    }
    models = {"whisper-base": {"systems": {name.replace("_", "-"): value for name, value in systems.items()}}}
    head = {"machine": machine, "threads": 2, "date": "2026-01-01", "command": "python x", "data": {}}
    return render({**head, "models": models})


def line(text: str, start: str) -> str:
    return next(found for found in text.splitlines() if found.startswith(f"| {start}"))


def test_ratios_are_to_ours_and_goals_to_the_fastest_peer() -> None:
    text = page(
        sottovoce=system(0.2, 4),
        faster_whisper=system(0.8, 4, invented=9),
        faster_whisper_greedy=system(0.6, 4),
    )
    assert "800 (4.00x)" in text
    assert line(text, "short clip, against").endswith("| 3.3x | 3.00x | not reached |")


def test_errors_are_held_against_the_better_peer() -> None:
    text = page(sottovoce=system(0.2, 5), faster_whisper=system(0.8, 6), faster_whisper_greedy=system(0.8, 4))
    assert line(text, "english errors above the best").endswith("| +1.00 points | not reached |")


def test_invented_words_are_held_against_the_defaults_only() -> None:
    text = page(
        sottovoce=system(0.2, 4, invented=3),
        faster_whisper=system(0.8, 4, invented=4),
        faster_whisper_batched=system(0.8, 4, invented=0),
    )
    assert line(text, "invented words").endswith("| < 4 | 3 | reached |")


def test_a_page_without_ours_has_figures_and_no_goals() -> None:
    text = page(transformers=system(0.8, 4))
    assert "| 800 | - |" in text
    assert "reached" not in text


def test_no_folder_of_this_machine_gets_into_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "base.svb"
    file.touch()
    shown = command_line(
        "benchmarks/transcribe.py", [f"--model=whisper-base={file}", "--output", str(tmp_path / "new")]
    )
    assert shown == "python benchmarks/transcribe.py --model=whisper-base=base.svb --output new"
