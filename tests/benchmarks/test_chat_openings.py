"""Systems are opened several times in turns, and every opening's rounds count."""

from collections.abc import Callable, Mapping
from pathlib import Path

from chat_plan import Plan
from chat_stages.openings import OPENINGS, Case, over_openings, rated
from peers.chat import Answered, Question, Sampling

PLAN = Plan((), 1, OPENINGS + 1, 0.0, 4, (8,), 8, 16, None, 0, (), (), 0, Path("work"))
CASES = {"short": Case(Question((), "", (1, 2)), 4), "long": Case(Question((), "", (1, 2, 3)), 4)}


class Noted:
    """Notes what is done to it; each opening is slower than the one before."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log
        self.opening = sum(line == f"load {name}" for line in log) + 1

    def load(self) -> None:
        self.log.append(f"load {self.name}")

    def answer(self, question: Question, tokens: int, sampling: Sampling | None) -> Answered:
        assert self.log.count(f"load {self.name}") == self.log.count(f"close {self.name}") + 1
        return Answered(1.0, float(self.opening), tokens, tokens)

    def describe(self) -> Mapping[str, str]:
        return {"name": self.name}

    def close(self) -> None:
        self.log.append(f"close {self.name}")


def makers(log: list[str]) -> dict[str, Callable[[], Noted]]:
    return {name: lambda name=name: Noted(name, log) for name in ("ours", "theirs")}  # type: ignore[misc]


def test_each_system_is_opened_as_often_and_another_one_first_each_time() -> None:
    log: list[str] = []
    _, described = over_openings(PLAN, makers(log), CASES)
    loads = [line for line in log if line.startswith("load")]
    assert loads[:4] == ["load ours", "load theirs", "load theirs", "load ours"]
    assert len(loads) == 2 * OPENINGS == len(log) - len(loads)
    assert described == {"ours": {"name": "ours"}, "theirs": {"name": "theirs"}}


def test_rounds_of_all_openings_are_kept_for_every_case() -> None:
    rates, _ = over_openings(PLAN, makers([]), CASES)
    assert set(rates) == {"short", "long"} and rates["long"]["ours"].prompt == 3
    rounds = [run.rest_s for run in rates["short"]["theirs"].runs]
    assert rounds == [float(opening) for opening in range(1, OPENINGS + 1) for _ in range(2)]


def test_ours_is_held_against_each_other_system() -> None:
    rates, _ = over_openings(PLAN, makers([]), CASES)
    found = rated(rates, "ours")
    assert found["short"]["theirs"]["ours_against"] == {"generation": 1.0, "prompt": 1.0, "whole": 1.0}
    assert "ours_against" not in found["short"]["ours"]
