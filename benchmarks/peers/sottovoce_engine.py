"""Our engine without the chat around it: tokens in, the likeliest token out, as a bare loop would use it."""

import time
from collections.abc import Mapping

import sottovoce
from peers.chat import Answered, Made, Question, Sampling, steps
from sottovoce.chat.chat import Chat


class SottovoceEngine:
    """Greedy only."""

    def __init__(self, made: Made) -> None:
        self._chat = Chat(made.bundle.path, threads=made.threads, context=made.context)

    def load(self) -> None:
        self._chat.load()

    def answer(self, question: Question, tokens: int, sampling: Sampling | None) -> Answered:
        if sampling is not None:
            raise ValueError("the engine alone draws no tokens")
        engine = self._chat._ready.engine
        engine.truncate(0)
        began = time.perf_counter()
        token = int(engine.evaluate(question.tokens)[0].argmax())
        first = time.perf_counter()
        clock = [first]
        for _ in range(tokens - 1):
            token = int(engine.evaluate((token,))[0].argmax())
            clock.append(time.perf_counter())
        return Answered(first - began, clock[-1] - first, tokens, tokens, steps(clock))

    def describe(self) -> Mapping[str, str]:
        return {"sottovoce": sottovoce.__version__, "engine": self._chat.engine}

    def close(self) -> None:
        self._chat.close()


def build(made: Made) -> SottovoceEngine:
    """The system for one bundle."""
    return SottovoceEngine(made)
