"""The systems whose answers are timed side by side, behind one Protocol.

Knows their names and what each is made from; knows no clock but the one within an answer. A peer's module imports its
library at the top, so `create_chat` is where a library is imported and `ChatSystem.load` is where weights are read.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from chat_plan import ChatBundle


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt three times: as messages (empty for a model without a template), as text, as the text's tokens."""

    messages: tuple[Mapping[str, Any], ...]
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn, the same everywhere: Sottovoce's defaults."""

    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Answered:
    """Seconds from the question to the first token, from there to the last of `tokens`; `pieces` are how many came
    apart: fewer than `tokens` where some came together. `steps_s` are the seconds of each token after the first, where
    each came apart and was timed."""

    first_s: float
    rest_s: float
    tokens: int
    pieces: int
    steps_s: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        """Tokens a second after the first one."""
        return (self.tokens - 1) / self.rest_s

    @property
    def whole_s(self) -> float:
        return self.first_s + self.rest_s


def steps(clock: Sequence[float]) -> tuple[float, ...]:
    """Seconds between readings of a clock, one before the first step and one after each."""
    return tuple(after - before for before, after in pairwise(clock))


class ChatSystem(Protocol):
    """One way of running one model. Building it is cheap; `load` reads the weights."""

    def load(self) -> None:
        """Read the weights; after it `answer` works without further set-up."""

    def answer(self, question: Question, tokens: int, sampling: Sampling | None) -> Answered:
        """So many tokens from an empty cache, the likeliest ones without `sampling`. Sottovoce's answer may end
        earlier; the others go on behind an end."""

    def describe(self) -> Mapping[str, str]:
        """Versions and the settings that matter, to be written beside the figures."""

    def close(self) -> None:
        """Give the memory back."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a system is made from."""

    bundle: ChatBundle
    threads: int
    context: int
    work: Path
    genai: Path | None = None


@dataclass(frozen=True, slots=True)
class ChatEntry:
    """A row of the table: module, its options, its name in tables, and the library that it may lack."""

    module: str
    title: str
    needs: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


OURS, OUR_ENGINE, GENAI = "sottovoce", "sottovoce-engine", "genai"
RAW, RAW_DEFAULTS, LLAMA_CPP_PYTHON = "llama.cpp", "llama.cpp-batches", "llama-cpp-python"
CHAT_SYSTEMS: Mapping[str, ChatEntry] = {
    OURS: ChatEntry("peers.sottovoce_chat", "Sottovoce, Chat.stream"),
    RAW: ChatEntry("peers.llama_loop", "llama.cpp, bare loop, our settings", options={"own_batches": False}),
    RAW_DEFAULTS: ChatEntry("peers.llama_loop", "llama.cpp, bare loop, its batch sizes", options={"own_batches": True}),
    LLAMA_CPP_PYTHON: ChatEntry("peers.llama_cpp_python", "llama-cpp-python, Llama.generate", "llama_cpp"),
    OUR_ENGINE: ChatEntry("peers.sottovoce_engine", "Sottovoce, the engine alone, greedy"),
    GENAI: ChatEntry("peers.genai", "onnxruntime-genai", "onnxruntime_genai"),
}


def available(names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` whose library is installed here."""
    return tuple(n for n in names if not CHAT_SYSTEMS[n].needs or find_spec(CHAT_SYSTEMS[n].needs) is not None)


def create_chat(name: str, made: Made) -> ChatSystem:
    """Import the system's library and build it, weights not yet read. LookupError for an unknown name."""
    if name not in CHAT_SYSTEMS:
        raise LookupError(f"unknown system {name!r}; choose from {', '.join(CHAT_SYSTEMS)}")
    entry = CHAT_SYSTEMS[name]
    build: Callable[..., ChatSystem] = import_module(entry.module).build
    return build(made, **entry.options)


@dataclass(frozen=True, slots=True)
class Rates:
    """All rounds of one system on one prompt of `prompt` tokens."""

    prompt: int
    runs: tuple[Answered, ...]

    @property
    def median_step_s(self) -> float | None:
        """Of all steps of all rounds."""
        steps = [step for run in self.runs for step in run.steps_s]
        return statistics.median(steps) if steps else None

    def to_json(self) -> dict[str, Any]:
        """Medians, and every round."""
        step = self.median_step_s
        return {
            "prompt_tokens": self.prompt,
            "tokens": self.runs[0].tokens,
            "pieces": self.runs[0].pieces,
            "prompt_tokens_per_s": statistics.median(self.prompt / run.first_s for run in self.runs),
            "tokens_per_s": statistics.median(run.rate for run in self.runs),
            "first_s": [round(run.first_s, 5) for run in self.runs],
            "rest_s": [round(run.rest_s, 5) for run in self.runs],
            **({} if step is None else {"median_step_s": round(step, 6)}),
        }

    def against(self, other: "Rates") -> dict[str, float]:
        """How many times faster this is than `other`: the median of the rounds' ratios, as rounds take turns; of single
        steps ("step") the ratio of the medians of them all, which no slow second moves."""
        pairs = list(zip(self.runs, other.runs, strict=True))
        mine_s, theirs_s = self.median_step_s, other.median_step_s
        return {
            **({} if mine_s is None or theirs_s is None else {"step": theirs_s / mine_s}),
            "generation": statistics.median(mine.rate / theirs.rate for mine, theirs in pairs),
            "prompt": statistics.median(theirs.first_s / mine.first_s for mine, theirs in pairs),
            "whole": statistics.median(
                (theirs.whole_s / theirs.tokens) / (mine.whole_s / mine.tokens) for mine, theirs in pairs
            ),
        }
