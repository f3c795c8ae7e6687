import json

from sottovoce_compiler.memory.plan import MemoryPlan, Use

MB = 1_000_000
PLAN = MemoryPlan(
    imports={"python": 18 * MB, "numpy": 12 * MB},
    held={"weights": 50 * MB, "engine": 10 * MB},
    opening={"opening": 25 * MB},
    uses=(
        Use("short", {"audio": 5 * MB}),
        Use("usual", {"audio": 30 * MB, "past": 10 * MB}),
        Use("large", {"audio": 90 * MB}, needed=False),
    ),
)


def test_a_peak_is_what_is_held_and_the_larger_of_opening_and_use() -> None:
    assert [PLAN.peak(use) for use in PLAN.uses] == [85 * MB, 100 * MB, 150 * MB]


def test_the_most_is_of_the_uses_that_are_needed() -> None:
    assert PLAN.most == 100 * MB and PLAN.imported == 30 * MB


def test_the_report_has_megabytes_of_the_first_use_and_of_the_most() -> None:
    found = PLAN.to_json()
    assert (found["peak_mb"], found["with_imports_mb"]) == (85.0, 130.0)
    assert found["uses"] == {"short": 85.0, "usual": 100.0, "large": 150.0}
    assert found["imports"] == {"python": 18.0, "numpy": 12.0} and found["opening_mb"] == 85.0
    assert json.loads(json.dumps(found)) == found
