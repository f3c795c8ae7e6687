"""Ours, through the public API, as a user of the runtime would write it; only the cache is emptied from inside."""

import time
from collections.abc import Mapping
from dataclasses import asdict

from chat_plan import LLAMA_CPP

import sottovoce
from peers.chat import Answered, Made, Question, Sampling, steps
from sottovoce.chat.chat import Chat


class SottovoceChat:
    """A chat in the runtime's defaults. Timed from the messages: template and tokens are made within."""

    def __init__(self, made: Made) -> None:
        self.chat = Chat(made.bundle.path, threads=made.threads, context=made.context)
        _import_engine(made.bundle.engine)

    def load(self) -> None:
        self.chat.load()

    def empty(self) -> None:
        """Forget every token that was evaluated."""
        self.chat._ready.prefix.truncate(0)

    def answer(self, question: Question, tokens: int, sampling: Sampling | None) -> Answered:
        self.empty()
        chosen = {"temperature": 0.0} if sampling is None else asdict(sampling)
        began = time.perf_counter()
        clock, usage = list[float](), None
        if question.messages:
            stream = self.chat.stream(question.messages, max_tokens=tokens, **chosen)
        else:
            stream = self.chat.complete(question.text, max_tokens=tokens, **chosen)
        for delta in stream:
            clock.append(time.perf_counter())
            usage = delta.usage
        assert usage is not None
        made, pieces = usage.completion_tokens, len(clock)
        apart = steps(clock) if pieces == made else ()
        return Answered(clock[0] - began, clock[-1] - clock[0], made, pieces, apart)

    def question(self, messages: tuple[Mapping[str, object], ...], text: str = "") -> Question:
        """The prompt of messages, or without a template `text` itself, as all systems take it."""
        ready = self.chat._ready
        whole = self.chat.render(messages) if ready.template is not None else text
        vocabulary = ready.engine.vocabulary
        tokens = vocabulary.encode(whole, special=ready.template is not None)
        if vocabulary.adds_bos and vocabulary.bos is not None and tokens[:1] != [vocabulary.bos]:
            tokens = [vocabulary.bos, *tokens]
        return Question(messages if ready.template is not None else (), whole, tuple(tokens))

    def describe(self) -> Mapping[str, str]:
        return {"sottovoce": sottovoce.__version__, "engine": self.chat.engine}

    def close(self) -> None:
        self.chat.close()


def _import_engine(engine: str) -> None:
    """What the runtime imports when it loads, so that libraries and weights are weighed apart, as of all systems."""
    import jinja2  # noqa: F401

    if engine == LLAMA_CPP:
        from sottovoce.engines.llama_cpp.library import load_library

        load_library()
    else:
        import tokenizers  # noqa: F401

        import sottovoce.engines.onnxruntime_chat  # noqa: F401


def build(made: Made) -> SottovoceChat:
    """The system for one bundle."""
    return SottovoceChat(made)
