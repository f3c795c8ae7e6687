"""Rounds over several openings of the systems.

So that no system has the luck of one opening (where its memory lies, what else the machine did meanwhile), all are
opened several times, each time in another order, and the rounds of all openings count.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from chat_plan import Plan
from peers.chat import Answered, ChatSystem, Question, Rates, Sampling
from timing import rounds

from chat_stages import Json, say

OPENINGS = 5


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, how long the answers are, and how tokens are drawn; None for the likeliest."""

    question: Question
    tokens: int
    sampling: Sampling | None = None


def over_openings(
    plan: Plan, makers: Mapping[str, Callable[[], ChatSystem]], cases: Mapping[str, Case]
) -> tuple[dict[str, dict[str, Rates]], Json]:
    """Rates by case and system, of `plan.repetitions` rounds or some more; and what the systems say of themselves."""
    rates: dict[str, dict[str, Rates]] = {case: {} for case in cases}
    described: Json = {}
    names = list(makers)
    share = replace(plan, repetitions=-(-plan.repetitions // OPENINGS))
    for opening in range(OPENINGS):
        say(f"  opening {opening + 1} of {OPENINGS}")
        first = opening % len(names)
        with ExitStack() as stack:
            systems: dict[str, ChatSystem] = {}
            for name in (*names[first:], *names[:first]):
                systems[name] = makers[name]()
                stack.callback(systems[name].close)
                systems[name].load()
            described = {name: dict(systems[name].describe()) for name in names}
            for case, asked in cases.items():
                for name, one in timed(share, systems, asked).items():
                    before = rates[case].get(name)
                    rates[case][name] = one if before is None else replace(one, runs=before.runs + one.runs)
    return rates, described


def timed(plan: Plan, systems: Mapping[str, ChatSystem], asked: Case) -> dict[str, Rates]:
    """All rounds of systems that are open, one uncounted first."""

    def answer(system: ChatSystem) -> Answered:
        return system.answer(asked.question, asked.tokens, asked.sampling)

    for system in systems.values():
        answer(system)
    measured = rounds(systems, answer, plan.repetitions, plan.rest_s)
    prompt = len(asked.question.tokens)
    return {name: Rates(prompt, tuple(answered for _, answered in runs)) for name, runs in measured.items()}


def rated(rates: Mapping[str, Mapping[str, Rates]], ours: str) -> Json:
    """The rates of each case as JSON values, `ours` against each of the others."""
    return {
        case: {
            name: {**one.to_json(), **({} if name == ours else {"ours_against": systems[ours].against(one)})}
            for name, one in systems.items()
        }
        for case, systems in rates.items()
    }
