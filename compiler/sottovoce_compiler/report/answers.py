"""How many questions a language model answers word for word: the source, its base where it has an adapter, the bundle.

Knows questions with their answers, as fine-tuning takes them, and greedy decoding on both sides: in torch by the model
that fine-tuning trains, in the bundle by the engine that the device has. Both are asked in the source's tokens.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.chat.chat import Chat
from sottovoce.chat.loading import LoadedChat
from sottovoce_compiler.families import language_model
from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.dataset import TextData, TextOptions
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.report.chat_measure import THREADS
from sottovoce_compiler.report.questions import Questions
from sottovoce_compiler.report.table import Table
from sottovoce_compiler.sources.checkpoint import Checkpoint

MOST = 200  # questions asked: the interval of a share is then within 7 points

Progress = Callable[[float], None]
Answer = Callable[[Any, Sequence[Sequence[int]]], list[list[int]]]


@dataclass(frozen=True, slots=True)
class Answers:
    """Shares of `asked` questions that were answered word for word, but for spaces around an answer."""

    data: str
    sha256: str
    asked: int
    source: float
    bundle: float
    base: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The report's `answers`."""
        facts = {"data": self.data, "sha256": self.sha256, "asked": self.asked}
        shares = {"base": self.base, "source": self.source, "bundle": self.bundle}
        return facts | {"exact_match": {name: round(one, 4) for name, one in shares.items() if one is not None}}

    def table(self) -> Table:
        """For the screen."""
        shares = {"base": self.base, "source": self.source, "bundle": self.bundle}
        found = {name: one for name, one in shares.items() if one is not None}
        title = f"{self.asked} questions of {self.data}"
        return Table(title, ("", *found), (("answered word for word", *(f"{one:.1%}" for one in found.values())),))


def measure_answers(
    questions: Questions,
    checkpoint: Checkpoint,
    bundle: Path,
    base: Checkpoint | None = None,
    progress: Progress = lambda done: None,
) -> Answers:
    """The questions at most `MOST` of them, asked of each. Raises DataError for lines that cannot be used."""
    data = TextData.load(questions.path, checkpoint, TextOptions(answer_marker=questions.marker))
    examples, models = data.train[:MOST], [one for one in (checkpoint, base) if one is not None]
    shares = []
    for number, model in enumerate(models):
        shares.append(_share(_torch(model, questions, data.coder), data.coder, examples))
        progress((number + 1) / (len(models) + 1))
    with Chat(bundle, threads=THREADS) as chat:
        chat.load()
        found = _share(_engine(chat._ready, questions, data.coder), data.coder, examples)
    progress(1)
    digest = hashlib.sha256(questions.path.read_bytes()).hexdigest()
    return Answers(questions.path.name, digest, len(examples), shares[0], found, shares[1] if base else None)


def _share(
    answer: Callable[[Sequence[Sequence[int]]], list[list[int]]], coder: Coder, examples: Sequence[Example]
) -> float:
    pairs = [example.last_answer() for example in examples]
    given = answer([before.tolist() for before, _ in pairs])
    right = [_text(coder, one) == _text(coder, wanted.tolist()) for one, (_, wanted) in zip(given, pairs, strict=True)]
    return sum(right) / max(1, len(right))


def _text(coder: Coder, ids: list[int]) -> str:
    """What is seen of an answer: without the token that ends it, and without spaces around it."""
    return coder.decode(ids[:-1] if ids and ids[-1] in coder.ends else ids).strip()


def _torch(
    checkpoint: Checkpoint, questions: Questions, coder: Coder
) -> Callable[[Sequence[Sequence[int]]], list[list[int]]]:
    from sottovoce_compiler.finetune.model.decoder import Decoder
    from sottovoce_compiler.finetune.tasks.chat import generated

    model = Decoder(language_model(checkpoint)).eval()
    return lambda prompts: generated(model, prompts, questions.max_answer, coder.ends)


def _engine(
    ready: LoadedChat, questions: Questions, coder: Coder
) -> Callable[[Sequence[Sequence[int]]], list[list[int]]]:
    return lambda prompts: [_greedy(ready, list(prompt), questions.max_answer, coder.ends) for prompt in prompts]


def _greedy(ready: LoadedChat, prompt: list[int], most: int, ends: Any) -> list[int]:
    """The likeliest tokens after `prompt`, until one that ends an answer, which is not given."""
    fed, answer = prompt[ready.prefix.reuse(prompt) :], list[int]()
    while len(answer) < min(most, ready.engine.context - len(prompt)):
        token = int(np.argmax(ready.prefix.evaluate(fed)[-1]))
        if token in ends:
            break
        answer.append(token)
        fed = [token]
    return answer
