"""Language models as a task: what an epoch sees, and how its measures are taken."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.model import Loss
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.tasks.chat import ChatTask
from sottovoce_compiler.finetune.trainer.world import Alone

END, SPACE = 1, 2


class Letters:
    """Ids as letters; END is not seen, SPACE is a space."""

    ends = frozenset({END})

    def decode(self, ids: Iterable[int]) -> str:
        return "".join("<end>" if one == END else " " if one == SPACE else chr(60 + one) for one in ids)


class Even(torch.nn.Module):
    """A loss of 2 a token that is learned from."""

    checkpointing = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: Any) -> Loss:
        return Loss(torch.tensor(2.0 * batch.labelled), batch.labelled)

    def adapted(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Half:
    """One of two processes; what the other has is as much."""

    rank: int
    size: int = 2
    is_main: bool = True

    def sum(self, values: list[float]) -> list[float]:
        return [2 * value for value in values]

    def any(self, flag: bool) -> bool:
        return flag

    def gather(self, value: Any) -> list[Any]:
        return [value, value]

    def barrier(self) -> None: ...


def example(line: int, asked: Sequence[int], answer: Sequence[int]) -> Example:
    return Example.of([*asked, *answer], [False] * len(asked) + [True] * len(answer), line)


def task(examples: Sequence[Example], answers: dict[tuple[int, ...], list[int]] | None = None, **more: Any) -> ChatTask:
    def answer(model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        return [(answers or {}).get(tuple(prompt), [9]) for prompt in prompts]

    settings = Settings(batch_tokens=16, dtype="float32", **more).completed("text", "cpu")
    return ChatTask(examples, examples, Letters(), answer, settings, True, "data.jsonl")


DATA = [example(line, [10 + line, 11, 12][: 1 + line % 3], [20 + line, 30, END]) for line in range(1, 13)]


def test_an_answer_counts_that_is_the_same_in_its_words() -> None:
    data = [example(1, [5], [20, 21, END]), example(2, [6], [SPACE, 22, END]), example(3, [7], [23, END])]
    answers = {(5,): [20, 21], (6,): [22, SPACE], (7,): [23, 23]}
    found = task(data, answers, measure="exact_match").evaluate(Even(), Alone())
    assert (found.measure, found.examples) == (pytest.approx(2 / 3), 3)
    assert (found.loss, found.tokens) == (2.0, 8)


def test_an_answer_that_says_the_end_is_not_the_same() -> None:
    data = [example(1, [5], [20, END])]
    assert task(data, {(5,): [20, END]}, measure="exact_match").evaluate(Even(), Alone()).measure == 0.0


def test_no_more_answers_are_generated_than_asked_for() -> None:
    found = task(DATA, measure="exact_match", eval_examples=5).evaluate(Even(), Alone())
    assert found.examples == 5 and found.tokens == sum(one.labelled for one in DATA), "the loss is of all"
    assert task(DATA, measure="exact_match", eval_examples=0).evaluate(Even(), Alone()).examples == 12


def test_the_loss_generates_nothing_and_is_lower_where_better() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    made = task(DATA)
    object.__setattr__(made, "answer", never)
    found = made.evaluate(Even(), Alone())
    assert (made.measure, made.lower_is_better, found.measure, found.examples) == ("loss", True, 2.0, 12)
    assert not task(DATA, measure="exact_match").lower_is_better


def test_an_epoch_sees_every_example_once_in_another_order_each_time() -> None:
    made = task(DATA)
    orders = []
    for epoch in (0, 1):
        steps = list(made.epoch(epoch, Alone()))
        assert len(steps) == made.steps_in(epoch, Alone())
        seen = [line for step in steps for batch in step.batches for line in batch.examples]
        assert sorted(seen) == list(range(1, 13))
        orders.append(seen)
    assert orders[0] != orders[1]
    again = [line for step in made.epoch(0, Alone()) for batch in step.batches for line in batch.examples]
    assert again == orders[0]


def test_what_is_skipped_is_the_beginning() -> None:
    made = task(DATA)
    whole, rest = list(made.epoch(1, Alone())), list(made.epoch(1, Alone(), skip=2))
    assert [step.batches[0].examples for step in rest] == [step.batches[0].examples for step in whole[2:]]


def test_two_processes_see_what_one_sees_that_accumulates_twice_as_much() -> None:
    one = task(DATA, accumulation=2)
    alone = [[batch.examples for batch in step.batches] for step in one.epoch(0, Alone())]
    two = task(DATA)
    halves = [list(two.epoch(0, Half(rank))) for rank in (0, 1)]
    assert two.steps_in(0, Half(0)) == len(alone) == len(halves[0]) == len(halves[1])
    together = [[half.batches[0].examples for half in pair] for pair in zip(*halves, strict=True)]
    assert [[lines for lines in step if lines] for step in together] == alone


def test_two_processes_measure_what_one_measures() -> None:
    answers = {tuple(one.last_answer()[0].tolist()): one.last_answer()[1].tolist()[:-1] for one in DATA}
    for rank in (0, 1):
        found = task(DATA, answers, measure="exact_match").evaluate(Even(), Half(rank))
        assert (found.measure, found.examples, found.loss) == (1.0, 12, 2.0)


def test_progress_goes_up_to_its_end() -> None:
    told: list[float] = []
    task(DATA, measure="exact_match").evaluate(Even(), Alone(), told.append)
    assert told == sorted(told) and told[0] > 0 and told[-1] <= 1 and math.isfinite(sum(told))


def test_a_batch_is_named_by_its_lines() -> None:
    made = task(DATA)
    batch = next(made.epoch(0, Alone())).batches[0]
    assert made.where(batch) == f"data.jsonl, lines {', '.join(map(str, sorted(batch.examples)))}"
    assert made.seen(batch) == len(batch.tokens)
