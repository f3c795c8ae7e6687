"""Language models as a task: examples of text, their loss, and how many answers come out word for word.

Knows examples and the model that answers. Files, templates and splits are behind it, steps and checkpoints before it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.packing import collate, epoch_batches, group, pack, steps_in
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.trainer.task import Metrics, Progress, Step
from sottovoce_compiler.finetune.trainer.world import World

NAMED_LINES = 20  # of a batch, in messages

# What a model answers: (prompts as ids) -> ids of each answer, without what ended it.
Answer = Callable[[TrainingModel, Sequence[Sequence[int]]], list[list[int]]]


class Decode(Protocol):
    """Ids to text."""

    @property
    def ends(self) -> Collection[int]:
        """The tokens that end an answer."""
        ...

    def decode(self, ids: Any) -> str:
        """The text of tokens."""
        ...


@dataclass(frozen=True, slots=True)
class ChatTask:
    """A `Task` of packed tokens. `train` and `evaluation` are examples as the model reads them, `name` is that of the
    data, for messages; `settings` are completed."""

    train: Sequence[Example]
    evaluation: Sequence[Example]
    coder: Decode
    answer: Answer
    settings: Settings
    packing: bool
    name: str

    @property
    def measure(self) -> str:
        """ "loss" or "exact_match"."""
        return self.settings.measure or "loss"

    @property
    def lower_is_better(self) -> bool:
        """Of losses, not of matches."""
        return self.measure == "loss"

    def steps_in(self, epoch: int, world: World) -> int:
        """Steps of an epoch."""
        lengths, size, each = self._lengths(), self._size(), world.size * self.settings.accumulation
        return steps_in(lengths, size, each, self.settings.seed, epoch, packing=self.packing)

    def epoch(self, epoch: int, world: World, skip: int = 0) -> Iterator[Step]:
        """This process's steps."""
        plan = epoch_batches(
            self._lengths(),
            self._size(),
            self.settings.accumulation,
            self.settings.seed,
            epoch,
            world.rank,
            world.size,
            packing=self.packing,
        )
        for step in plan[skip:]:
            yield Step(tuple(collate([self.train[index] for index in one]) for one in step))

    def evaluate(self, model: TrainingModel, world: World, progress: Progress = lambda done: None) -> Metrics:
        """The loss of every example of the evaluation split; with "exact_match" also which of the first
        `settings.eval_examples` last answers the model gives itself, in the same words."""
        share = 1.0 if self.measure == "loss" else 0.3  # of the time: generating takes longer
        total, tokens = world.sum(self._loss(model, world, lambda done: progress(share * done)))
        loss = total / max(1.0, tokens)
        if self.measure == "loss":
            return Metrics(loss, int(tokens), loss, len(self.evaluation))
        asked = self.asked()
        mine = asked[world.rank :: world.size]
        right, count = world.sum([float(sum(self.matches(model, mine, lambda d: progress(0.3 + 0.7 * d)))), len(mine)])
        return Metrics(loss, int(tokens), right / max(1.0, count), int(count))

    def asked(self) -> Sequence[Example]:
        """The examples whose answers are generated."""
        return self.evaluation[: self.settings.eval_examples or None]

    def matches(self, model: TrainingModel, examples: Sequence[Example], progress: Progress) -> list[bool]:
        """Whether the model's own answer is that of each example, but for spaces around it."""
        found: list[bool] = []
        size = max(1, -(-len(examples) // 8))  # in parts, so that it can be seen and stopped
        for start in range(0, len(examples), size):
            progress(start / len(examples))
            pairs = [example.last_answer() for example in examples[start : start + size]]
            answers = self.answer(model, [before.tolist() for before, _ in pairs])
            found += [
                self.coder.decode(answer).strip() == self._wanted(wanted.tolist()).strip()
                for answer, (_, wanted) in zip(answers, pairs, strict=True)
            ]
        return found

    def seen(self, batch: Any) -> int:
        """Tokens of a batch."""
        return int(batch.tokens.numel())

    def where(self, batch: Any) -> str:
        """Lines of the data."""
        lines = sorted(set(batch.examples))
        if not lines:
            return f"{self.name}, no line"
        more = f" and {len(lines) - NAMED_LINES} more" if len(lines) > NAMED_LINES else ""
        return f"{self.name}, line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:NAMED_LINES]))}{more}"

    def _loss(self, model: TrainingModel, world: World, progress: Progress) -> list[float]:
        """Sum and count over this process's share of the split."""
        lengths = [len(example) for example in self.evaluation]
        bins = (pack if self.packing else group)(lengths, max(self._size(), max(lengths, default=1)), 0)
        total, tokens, device = 0.0, 0, next(p.device for _, p in model.named_parameters())
        # All run as many: what several processes hold of a model in common is gathered together.
        rounds = -(-len(bins) // world.size)
        for number in range(rounds):
            place = number * world.size + world.rank
            mine = bins[place] if place < len(bins) else ()
            loss = model(collate([self.evaluation[index] for index in mine], device))
            total, tokens = total + float(loss.total), tokens + loss.tokens
            progress((number + 1) / rounds)
        return [total, float(tokens)]

    def _wanted(self, ids: list[int]) -> str:
        """The text of an answer without the token that ends it, which nobody sees."""
        return self.coder.decode(ids[:-1] if ids and ids[-1] in self.coder.ends else ids)

    def _lengths(self) -> list[int]:
        return [len(example) for example in self.train]

    def _size(self) -> int:
        assert self.settings.batch_tokens is not None
        return self.settings.batch_tokens


def generated(model: Any, prompts: Sequence[Sequence[int]], max_tokens: int, ends: Any) -> list[list[int]]:
    """Greedy answers of a `Decoder`."""
    from sottovoce_compiler.finetune.model.generate import generate

    with torch.no_grad():
        return generate(model, prompts, max_tokens=max_tokens, stop=ends)
