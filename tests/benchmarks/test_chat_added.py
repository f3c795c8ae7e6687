"""A run of chat.py in parts: what was measured before stays, and only on the same machine with the same settings."""

from typing import Any

import pytest
from chat import added_to


def result(command: str, load: float, **changes: Any) -> dict[str, Any]:
    machine = {"cpu": "A processor", "cores": 2, "load_average_before": load}
    head = {"date": "2026-01-01", "threads": 2, "settings": {"repetitions": 5}, "models": {}, "machine": machine}
    return {**head, "command": command, **changes}


def test_a_second_part_keeps_the_models_and_names_both_commands_and_the_higher_load() -> None:
    before = result("python a", 0.5, models={"m": {"bundles": {"b": {"loop": 1}}, "stage_s": {}}})
    both = added_to(before, result("python b", 0.1, date="2026-01-02"))
    assert both["models"] == before["models"] and both["date"] == "2026-01-02"
    assert both["command"].split() == ["python", "a", "python", "b"]
    assert both["machine"]["load_average_before"] == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"repetitions": 7}}, "settings were .*5.* and are .*7"),
        ({"threads": 4}, "threads were 2 and are 4"),
        ({"machine": {"cpu": "Another", "cores": 2, "load_average_before": 0}}, "measured on .*A processor"),
    ],
)
def test_another_machine_or_plan_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        added_to(result("python a", 0), result("python b", 0, **changes))
