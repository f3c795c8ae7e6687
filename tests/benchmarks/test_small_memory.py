"""The table of runs under a limit, and the audio that they hear."""

from pathlib import Path
from typing import Any

import numpy as np
from small_memory import PAUSE, RATE, Run, table, write_audio
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
