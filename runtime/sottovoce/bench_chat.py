"""The clock beside a Chat: how long it takes to load and to a first token, and how many tokens come in a second.

Knows the decoding loop that answers go through, and gives it a text of our own; the model's template has no part in
it, so that models can be compared. Runs in a process that has done nothing else.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from sottovoce.bench import BenchResult, machine_facts, megabytes_since, peak_bytes

if TYPE_CHECKING:
    from sottovoce.chat.loading import LoadedChat

# Tokens of the prompt whose first answer is timed, that are generated, and of the long prompt.
SHORT, GENERATED, LONG = 64, 64, 512
TEXT = """\
The ferry leaves at seven, and by half past six the square below the harbour office is full of crates. There is
bread for the island's only shop, two bicycles, a box of seed potatoes, and a piano that nobody has come to
claim. Marta, who has sold tickets here for thirty years, counts the passengers twice and writes the number on
the back of her hand. When the wind is from the north she shakes her head, and those who know her go home again
without asking. Today it blows from the west, so she nods, and the gangway comes down. On board the engineer is
reading the pressure from three dials, of which one has been wrong since the spring; he knows by how much. The
crossing takes fifty minutes when the tide helps, and a little over an hour when it does not. Halfway across the
children are allowed to ring the bell, once each, in the order of their ages. By then the mainland is a grey
line, the coffee is finished, and somebody has begun to play the piano after all.
"""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the short prompt, of the answer to it, and of the long prompt."""

    short: int
    generated: int
    long: int


USUAL = Lengths(SHORT, GENERATED, LONG)
BRIEF = Lengths(16, 24, 64)  # seconds where the usual takes a minute; its rates scatter more


@dataclass(frozen=True, slots=True)
class _Run:
    """Seconds of one run: to the first token, from there to the last of `tokens`, and for the long prompt."""

    first: float
    rest: float
    tokens: int
    prompt: float

    @property
    def total(self) -> float:
        return self.first + self.rest + self.prompt


def measure_here(path: str, runs: int, threads: int | None, lengths: Lengths = USUAL) -> BenchResult:
    """The measurement of a chat bundle or a GGUF file, in this process. Raises what a Chat raises."""
    import sottovoce
    from sottovoce.chat import generate, loading  # noqa: F401  # imports are not what is measured

    make = sottovoce.Chat
    _load_engine(path)
    before = peak_bytes()
    started = time.perf_counter()
    with make(path, threads=threads) as chat:
        chat.load()
        load_s = time.perf_counter() - started
        ready = chat._ready
        short, long = _tokens(ready, lengths.short), _tokens(ready, lengths.long)
        timed = [_timed_run(ready, short, long, lengths.generated) for _ in range(runs + 1)]
        engine = chat.engine
    best = timed[1:]
    return BenchResult(
        load_s=round(load_s, 4),
        first_s=round(timed[0].first, 4),
        rtf=None,
        peak_mb=megabytes_since(before),
        bytes=_size(path, ready),
        audio_s=None,
        runs_s=tuple(round(run.total, 4) for run in best),
        threads=chat._threads,
        machine=machine_facts(),
        tokens_per_s=round(median((run.tokens - 1) / max(run.rest, 1e-9) for run in best), 2),
        prompt_tokens_per_s=round(median(len(long) / max(run.prompt, 1e-9) for run in best), 2),
        engine=engine,
        process_mb=megabytes_since(0),
    )


def _load_engine(path: str) -> None:
    """The engine's library, which is no part of loading a model."""
    from sottovoce.bundle import LITERT, LLAMA_CPP, open_bundle
    from sottovoce.chat.loading import is_gguf

    name = LLAMA_CPP if is_gguf(Path(path)) else open_bundle(path).manifest.engine.name
    if name == LLAMA_CPP:
        from sottovoce.engines.llama_cpp import engine, library  # noqa: F401

        library.load_library()
        return
    import tokenizers  # noqa: F401

    if name == LITERT:
        from sottovoce.engines import litert_chat, litert_model  # noqa: F401

        litert_model.load_interpreter()
    else:
        import sottovoce.engines.onnxruntime_chat  # noqa: F401


def _tokens(ready: "LoadedChat", count: int) -> tuple[int, ...]:
    """So many tokens of the text, over and over, or half of the context where that is less."""
    vocabulary = ready.engine.vocabulary
    once = vocabulary.encode(TEXT, special=False)
    begun = [vocabulary.bos] if vocabulary.adds_bos and vocabulary.bos is not None else []
    count = max(1, min(count, ready.engine.context // 2))
    return tuple([*begun, *once * (count // len(once) + 1)][:count])


def _timed_run(ready: "LoadedChat", short: Sequence[int], long: Sequence[int], generated: int = GENERATED) -> _Run:
    """A greedy answer that goes on behind its end, then a long prompt; both from an empty cache."""
    from sottovoce.chat.generate import generate
    from sottovoce.chat.options import ChatOptions

    never = dict.fromkeys(ready.engine.vocabulary.ends, -100.0)
    options = ChatOptions(temperature=0.0, max_tokens=generated, logit_bias=never)
    ready.prefix.truncate(0)
    started = time.perf_counter()
    steps = generate(ready.prefix, short, options)
    next(steps)
    first = time.perf_counter()
    tokens = 1 + sum(1 for _ in steps)
    last = time.perf_counter()
    ready.prefix.truncate(0)
    begun = time.perf_counter()
    ready.prefix.evaluate(long)
    return _Run(first - started, last - first, tokens, time.perf_counter() - begun)


def _size(path: str, ready: "LoadedChat") -> int:
    return Path(path).stat().st_size if ready.bundle is None else ready.bundle.size
