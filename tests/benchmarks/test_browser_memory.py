"""The browser's memory benchmark: its cases and its table. Chromium itself is not started."""

from browser_memory import CASES, markdown

from sottovoce_targets import load_target


def test_every_case_is_for_a_browser_and_some_are_held_out() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(load_target(case.target).os == "browser" and case.form == "onnx" for case in CASES)
    assert {case.fitted for case in CASES} == {True, False}


def test_the_table_has_the_median_the_range_and_the_error_of_what_is_predicted() -> None:
    runs = [{"opened": 600.0, "short": size} for size in (690.0, 700.0, 720.0)]
    case = {"fitted": True, "bundle_mb": 43.2, "runs": runs, "predicted": {"short": 735.0}}
    machine = {"date": "2026-01-01", "cpu": "A processor", "cores": 2, "system": "Linux"}
    text = markdown({"machine": {**machine, "browser": "Chrome/1", "onnxruntime-web": "1.30"}, "cases": {"a": case}})
    assert "| a* | 43 | opened |  | 600 | 600 to 600 |  |" in text
    assert "| a* | 43 | short | 735 | 700 | 690 to 720 | +5.0% |" in text
