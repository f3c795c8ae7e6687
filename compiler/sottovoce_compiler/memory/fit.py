"""Whether a bundle fits its target, alone and beside another: decided before anything slow is done.

Knows plans and what a target leaves to programs; knows nothing of models.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sottovoce.errors import InputError, SottovoceError
from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.memory.neighbour import Neighbour
from sottovoce_compiler.memory.plan import MEGABYTE, NOT_PREDICTED, MemoryPlan, Use, megabytes
from sottovoce_targets import PRECISIONS, Target

PlanOf = Callable[[str], MemoryPlan | None]  # of a precision


class DoesNotFitError(SottovoceError, MemoryError):
    """The bundle would not fit its target; the message has what it needs, what there is, and what would fit."""


def require_fit(
    name: str, target: Target, precision: str, plan_of: PlanOf, precisions: Iterable[str], beside: Neighbour | None
) -> dict[str, Any]:
    """What the report says of the memory of `name` in `precision`, as a part of it; where nothing is predicted, that.

    `precisions` are the others that the format has. Raises DoesNotFitError; InputError where another bundle is to fit
    beside one whose memory is not predicted.
    """
    plan = plan_of(precision)
    if plan is None:
        if beside is not None:
            raise InputError("--beside: the memory of this format is not predicted; `sottovoce bench` measures it")
        return {"memory": {NOT_PREDICTED: "it was not measured for this format on such a target; nothing is refused"}}
    usable = target.usable_mb << 20
    if needed(plan, beside) > usable:
        raise DoesNotFitError(
            _refusal(name, target, precision, plan, beside, _fitting(plan_of, precisions, target, beside))
        )
    found = {**plan.to_json(), "usable_mb": megabytes(usable)}
    if beside is not None:
        together = {"with_imports_mb": megabytes(beside.most), "together_mb": megabytes(needed(plan, beside))}
        found["beside"] = {"name": beside.name, **together}
    too_much = [use.name for use in plan.uses if needed(plan, beside, use) > usable]
    if too_much:
        found["too_much"] = too_much
    return {"memory": found}


def needed(plan: MemoryPlan, beside: Neighbour | None, use: Use | None = None) -> int:
    """Bytes of a process that uses a bundle so, or else in the way that takes most of those it needs; with a neighbour
    in it, what both import counts once."""
    above = plan.most if use is None else plan.peak(use)
    if beside is None:
        return plan.imported + above
    names = plan.imports.keys() | beside.imports.keys()
    shared = sum(max(plan.imports.get(name, 0), beside.imports.get(name, 0)) for name in names)
    return shared + above + beside.above_imports


def _fitting(
    plan_of: PlanOf, precisions: Iterable[str], target: Target, beside: Neighbour | None
) -> tuple[str, int] | None:
    """The best precision that fits, and what it needs: the usual ones by their order, others by their size."""
    fitting: dict[str, int] = {}
    for precision in precisions:
        try:
            plan = plan_of(precision)
        except (InputError, UnsupportedModelError):  # a precision that this model cannot have
            continue
        if plan is not None and needed(plan, beside) <= target.usable_mb << 20:
            fitting[precision] = needed(plan, beside)
    usual = [precision for precision in PRECISIONS if precision in fitting]
    if not fitting:
        return None
    best = max(fitting, key=fitting.__getitem__)
    if usual and fitting[usual[0]] >= fitting[best]:
        best = usual[0]
    return best, fitting[best]


def _refusal(
    name: str, target: Target, precision: str, plan: MemoryPlan, beside: Neighbour | None, best: tuple[str, int] | None
) -> str:
    need, have = needed(plan, beside) / MEGABYTE, (target.usable_mb << 20) / MEGABYTE
    both = "" if beside is None else f" beside {beside.name}"
    said = f"{name} in {precision}{both} needs {need:.0f} MB; {target.name} has {have:.0f} MB for programs. "
    if best is None:
        return (
            said + "No precision of this format would fit: take a smaller model or another --format, or say --memory-mb"
        )
    return said + f"--precision {best[0]} would fit, with {best[1] / MEGABYTE:.0f} MB"
