from dataclasses import replace

import pytest
from tests.targets.test_targets import GOOD

from sottovoce.errors import InputError
from sottovoce_compiler.memory.fit import DoesNotFitError, needed, require_fit
from sottovoce_compiler.memory.neighbour import Neighbour
from sottovoce_compiler.memory.plan import MemoryPlan, Use
from sottovoce_targets import parse_target

MB = 1_000_000
TARGET = parse_target("board", GOOD)  # 400 * 2^20 bytes for programs: 419 MB
IMPORTS = {"python": 20 * MB, "onnxruntime": 30 * MB}
SIZES = {"fp32": 900, "fp16": 950, "int8": 300, "int4": 200, "q5": 250}
OTHER = Neighbour("chat.svb", 150 * MB, {"python": 20 * MB, "llama.cpp": 10 * MB})


def plan_of(precision: str) -> MemoryPlan | None:
    if precision == "odd":
        raise InputError("rows of 40 values do not divide into blocks")
    if precision not in SIZES:
        return None
    held = {"weights": SIZES[precision] * MB}
    return MemoryPlan(IMPORTS, held, {}, (Use("short", {"audio": 10 * MB}),))


def test_what_fits_is_in_the_report_beside_what_there_is() -> None:
    memory = require_fit("m", TARGET, "int8", plan_of, SIZES, None)["memory"]
    assert (memory["peak_mb"], memory["with_imports_mb"], memory["usable_mb"]) == (310.0, 360.0, 419.4)
    assert "beside" not in memory


def test_what_does_not_fit_is_refused_with_both_numbers_and_the_best_precision_that_does() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        require_fit("m", TARGET, "fp32", plan_of, ["odd", *SIZES, "unknown"], None)
    assert str(caught.value) == (
        "m in fp32 needs 960 MB; board has 419 MB for programs. --precision int8 would fit, with 360 MB"
    )
    assert caught.value.exit_code == 1


def test_the_best_precision_that_fits_is_the_largest_where_it_has_no_usual_name() -> None:
    with pytest.raises(DoesNotFitError, match="--precision q5 would fit, with 310 MB"):
        require_fit("m", TARGET, "fp16", plan_of, ["q5", "int4"], None)


def test_where_no_precision_fits_that_is_said_with_the_way_out() -> None:
    with pytest.raises(DoesNotFitError, match=r"No precision of this format would fit.*--memory-mb"):
        require_fit("m", TARGET, "fp32", plan_of, ["fp16"], None)


def test_two_bundles_in_one_process_import_what_both_need_once() -> None:
    plan = plan_of("int4")
    assert plan is not None
    assert needed(plan, OTHER) == (20 + 30 + 10 + 210 + 120) * MB
    assert needed(plan, None) == (20 + 30 + 210) * MB


def test_a_neighbour_is_reckoned_with_and_named() -> None:
    memory = require_fit("m", TARGET, "int4", plan_of, SIZES, OTHER)["memory"]
    assert memory["beside"] == {"name": "chat.svb", "with_imports_mb": 150.0, "together_mb": 390.0}
    with pytest.raises(DoesNotFitError, match=r"m in int8 beside chat.svb needs 490 MB.*--precision int4 would fit"):
        require_fit("m", TARGET, "int8", plan_of, SIZES, OTHER)


def test_a_use_that_can_be_done_without_is_named_where_it_would_not_fit() -> None:
    def plan_with_more(precision: str) -> MemoryPlan | None:
        plan = plan_of(precision)
        return plan and replace(plan, uses=(*plan.uses, Use("large", {"audio": 100 * MB}, needed=False)))

    memory = require_fit("m", TARGET, "int8", plan_with_more, SIZES, None)["memory"]
    assert memory["too_much"] == ["large"] and memory["with_imports_mb"] == 360.0
    assert "too_much" not in require_fit("m", TARGET, "int4", plan_with_more, SIZES, None)["memory"]
    assert require_fit("m", TARGET, "int4", plan_with_more, SIZES, OTHER)["memory"]["too_much"] == ["large"]


def test_a_format_whose_memory_is_unknown_is_not_refused_but_cannot_have_a_neighbour() -> None:
    memory = require_fit("m", TARGET, "int3", plan_of, SIZES, None)["memory"]
    assert list(memory) == ["not_predicted"] and "nothing is refused" in memory["not_predicted"]
    with pytest.raises(InputError, match="--beside: the memory of this format is not predicted"):
        require_fit("m", TARGET, "int3", plan_of, SIZES, OTHER)
