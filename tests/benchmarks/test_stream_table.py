"""The page of a streaming result."""

from typing import Any

import pytest
from peers.live import LIVE_SYSTEMS
from stream_table import render

WORDS = {"substitutions": 2, "deletions": 1, "insertions": 1, "reference": 100}


def latency(mean: float, rate: float) -> dict[str, Any]:
    spread = {"mean": mean, "p50": mean, "p90": mean + 0.5, "p99": mean + 1}
    return {
        "wer": rate,
        "words": WORDS,
        "offline_wer": 0.03,
        "offline_words": WORDS | {"insertions": 0},
        "wer_increase": round(rate - 0.03, 4),
        "word_to_commit_s": spread,
        "word_to_first_partial_s": {**spread, "p50": 0.4},
        "share_of_cores": {"speech": 0.35, "silence": None},
        "share_of_cores_overall": 0.33,
        "rtf": 0.5,
        "max_lag_s": 0.2,
        "rewritten_words_per_word": 0.25,
        "word_ends": {"matched": 96},
    }


def result(**ours: Any) -> dict[str, Any]:
    systems = {
        "sottovoce": {"about": {"sottovoce": "1"}, "latency": latency(0.65, 0.04), **ours},
        "agreement": {"about": {"beam_size": "5"}, "latency": latency(2.5, 0.05)},
    }
    return {
        "date": "2026-01-01",
        "command": "python benchmarks/stream.py",
        "machine": {
            "cpu": "A processor",
            "cpu_family_model": "1/2",
            "cores": 2,
            "flags": ["avx2"],
            "system": "Linux x86_64",
            "python": "3.11",
            "load_average_before": 0.1,
        },
        "threads": 2,
        "data": {"manifest": "manifest.jsonl", "sha256": "00"},
        "word_ends": {"clips": 3, "audio_s": 60.0, "words": 100, "trusted": 97, "left_out": {"squeezed": ["the"] * 3}},
        "models": {"whisper-tiny.en": {"systems": systems}},
    }


def rows(page: str, title: str) -> list[list[str]]:
    """Cells of the rows whose first cell is `title`."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [row[1:] for row in cells if row[0] == title]


def test_each_system_has_a_row_of_delays_and_one_of_errors() -> None:
    page = render(result())
    delays, errors, work = rows(page, "LocalAgreement, 1.0 s, beam 5")
    assert delays[:4] == ["2.50", "2.50", "3.00", "3.50"]
    assert errors[:3] == ["5.0% (4/100)", "3.0% (3/100)", "+2.00"]
    assert work[0] == "0.500"
    assert "97 of 100 words' ends from forced alignment (left out: 3 squeezed)" in page


def test_aims_that_were_missed_or_not_measured_say_so() -> None:
    page = render(result())
    assert rows(page, "word's end to commit, mean") == [["0.70 s", "0.65 s", "reached"]]
    assert rows(page, "streamed above offline") == [["1.00 points", "1.00 points", "reached"]]
    assert rows(page, "share of the cores, speaking") == [["30.0%", "35.0%", "not reached"]]
    assert rows(page, "share of the cores, silent (the greater, real time)") == [["2.0%", "-", "not measured"]]


def test_the_greater_share_of_digital_silence_and_noise_counts() -> None:
    quiet = {kind: {"share_of_cores_in_real_time": share} for kind, share in (("digital", 0.01), ("noise", 0.03))}
    page = render(result(silence=quiet))
    assert rows(page, "share of the cores, silent (the greater, real time)") == [["2.0%", "3.0%", "not reached"]]


def test_a_stage_that_was_left_out_has_no_table() -> None:
    assert "The soak" not in render(result())
    growth = {"rss_mb_per_hour": 0.4, "rss_mb_span": 1.25, "same_audio_cost_ratio": None}
    page = render(result(soak={"growth": growth, "peak_mb": 150.0}))
    (row,) = (row for row in rows(page, "Sottovoce") if row[0] == "+0.40")
    assert row[:5] == ["+0.40", "1.2", "-", "150", "-"]


def test_what_a_theft_changed_is_taken_apart() -> None:
    changed = {"substitutions": 1, "deletions": 0, "insertions": 2, "reference": 50}
    stolen = {"disturbed": {"errors_against_undisturbed": changed, "lag_during": {"mean": 0.5, "max": 1.5}}}
    page = render(result(stolen=stolen))
    assert any(row[0] == "0 lost, 2 added, 1 other" for row in rows(page, "Sottovoce"))


@pytest.mark.parametrize("name", LIVE_SYSTEMS)
def test_every_system_has_a_title_of_its_own(name: str) -> None:
    titles = [entry.title for entry in LIVE_SYSTEMS.values()]
    assert titles.count(LIVE_SYSTEMS[name].title) == 1
