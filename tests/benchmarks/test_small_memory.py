"""The table of runs under a limit, and the audio that they hear."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_limit import LimitUnavailable
from small_memory import PAUSE, RATE, Job, Run, run, table, write_audio
from tests.runtime.wave_case import tone, wave

MACHINE = {"cpu": "a processor", "cores": 2, "python": "3.11", "load_average_before": 0.2}
FACTS: dict[str, Any] = {
    **{"model": "whisper-tiny.en", "target": "raspberry-pi-zero-2w", "threads": 4, "onnxruntime": "1.32.0"},
    **{"machine": MACHINE, "date": "2026-01-01", "command": "python x"},
}
FULL = Run(None, False, 247.3, 161.0, 227.7, 60.0, 79.8, 145, "aa")


def test_a_run_that_was_killed_and_one_whose_text_differs_are_told_as_that() -> None:
    lines = table(
        [FULL, Run(300, False, 247.0, 161.0, 228.0, 60.0, 81.0, 144, "bb"), Run(90, True)], FACTS
    ).splitlines()
    assert "| none | 247 | 161 | 228 | 80 | 145 | the same |" in lines
    assert "| 300 | 247 | 161 | 228 | 81 | 144 | differs |" in lines
    assert any(line.startswith("| 90 | killed |") for line in lines)


def test_recordings_are_heard_one_after_the_other_up_to_so_many_seconds(tmp_path: Path) -> None:
    file, raw = tmp_path / "a.wav", tmp_path / "audio.raw"
    file.write_bytes(wave(tone(1.0, RATE)))
    write_audio([file, file], raw, 60)
    samples = np.fromfile(raw, np.float32)
    assert samples.size == 2 * (RATE + PAUSE) and not samples[RATE : RATE + PAUSE].any()
    write_audio([file, file], raw, 1.5)
    assert np.fromfile(raw, np.float32).size == 1.5 * RATE


@pytest.mark.weights
def test_a_live_stream_of_tiny_en_runs_in_300_mb(tiny_bundle_for: Callable[..., Path], tmp_path: Path) -> None:
    from sottovoce_compiler.report.builtin import builtin_set

    spoken = [clip.file for clip in builtin_set().clips if clip.name.startswith("two-cities")]
    write_audio(spoken, tmp_path / "audio.raw", 30)
    job = Job(str(tiny_bundle_for("raspberry-pi-zero-2w")), str(tmp_path / "audio.raw"), threads=2)
    try:
        found = run(job, 300)
    except LimitUnavailable as reason:
        pytest.skip(str(reason))
    assert not found.killed and (found.words or 0) > 40
    assert found.resident_mb is not None and found.resident_mb < 300
