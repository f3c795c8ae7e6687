"""What the comparison of engines computes and writes."""

from types import SimpleNamespace
from typing import Any

import litert
import numpy as np


def test_ratios_are_of_rounds_and_the_first_bundles_time_over_the_others() -> None:
    found: dict[str, Any] = {"onnx": {}, "litert": {}}
    litert._note(found, "clip", {"onnx": [1.0, 4.0, 2.0], "litert": [0.5, 4.0, 4.0]})
    assert found["onnx"]["clip"]["ratio"] == 1 and found["onnx"]["clip"]["median_s"] == 2
    assert found["litert"]["clip"]["ratio"] == 1, "the median of 2, 1 and 0.5"
    assert found["litert"]["clip"]["seconds"] == [0.5, 4.0, 4.0]


def test_a_page_has_a_table_for_each_model() -> None:
    timed = {"median_s": 0.25, "ratio": 1.5}
    costs = {"load_s": 0.1, "peak_mb": 90.4, "process_mb": 150.0, "bytes": 43_200_000}
    speech = dict.fromkeys(("clip", "long", "encoder", "token"), timed) | costs
    speech["errors"] = {"rate": 0.025, "reference": 351}
    chat = dict.fromkeys(("prompt", "token"), timed) | costs
    facts = {"cpu": "C", "cpu_family_model": "1/2", "cores": 2, "flags": ["avx2"], "system": "S", "python": "3"}
    result = {
        **{"date": "2026-01-01", "command": "python x", "threads": 2},
        "machine": {**facts, "load_average_before": 0.1},
        **{"speech": {"tiny": {"onnx": speech}}, "chat": {"small": {"litert": chat}}},
    }
    page = litert.render(result)
    four = "250 (1.50x) | 0.25 (1.50x) | 250 (1.50x) | 250 (1.50x)"
    assert f"| onnx | {four} | 2.5% of 351 | 100 | 90 | 150 | 43.2 |" in page
    assert "| litert | 1024 (1.50x) | 4 (1.50x) | 100 | 90 | 150 | 43.2 |" in page


def test_an_answer_is_timed_apart_from_its_prompt() -> None:
    fed: list[int] = []

    def evaluate(tokens: list[int]) -> Any:
        fed.append(len(tokens))
        return np.eye(5, dtype=np.float32)[3:4]

    engine: Any = SimpleNamespace(truncate=lambda length: None, evaluate=evaluate)
    prompt, token = litert.answered(engine, [1, 2, 3])
    assert fed == [3, *[1] * litert.ANSWER] and prompt > 0 and token > 0
