"""Tokens a second through Chat.stream beside a bare loop over llama.cpp: same file, same threads, same prompt.

Rounds take turns; the cache is empty before each. Ours is timed from the messages to the last piece of text, the others
from tokens to tokens.
"""

from collections.abc import Mapping, Sequence

from chat_plan import ChatBundle, ChatModel, Plan
from chat_prompts import STORY, asked, story
from peers.chat import (
    LLAMA_CPP_PYTHON,
    OURS,
    RAW,
    RAW_DEFAULTS,
    Answered,
    ChatSystem,
    Made,
    Question,
    Rates,
    Sampling,
    available,
    create_chat,
)
from peers.sottovoce_chat import SottovoceChat
from timing import rounds

from chat_stages import Json, say

LEAST = 24  # tokens: a shorter answer says nothing of a rate
_SEEDS = 8  # of which the first is taken whose answer is long enough


def run(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Json:
    """Each prompt greedily, and the shortest one with sampling."""
    made = Made(bundle, plan.threads, plan.context, plan.work)
    systems = {name: create_chat(name, made) for name in available((OURS, RAW, RAW_DEFAULTS, LLAMA_CPP_PYTHON))}
    for system in systems.values():
        system.load()
    ours = systems[OURS]
    assert isinstance(ours, SottovoceChat)
    found: Json = {"systems": {name: dict(system.describe()) for name, system in systems.items()}}
    for wanted in plan.prompts:
        question = ask(ours, wanted)
        say(f"  greedy, prompt of {len(question.tokens)}")
        found[f"greedy {wanted}"] = beside(plan, systems, question, None)
    say("  sampled")
    question = ask(ours, min(plan.prompts))
    found["sampled"] = beside(plan, systems, question, long_enough(ours, question, plan.tokens))
    for system in systems.values():
        system.close()
    return found


def ask(ours: SottovoceChat, tokens: int) -> Question:
    """A prompt of about so many tokens that asks for a long answer."""
    template = ours.chat._ready.template is not None

    def count(text: str) -> int:
        return ours.chat.count_tokens(asked(STORY, text) if template else text)

    text = story(tokens, count)
    return ours.question(asked(STORY, text), text)


def long_enough(ours: SottovoceChat, question: Question, tokens: int) -> Sampling:
    """A seed whose answer does not end before so many tokens, or of a few the one with the longest."""
    lengths = {}
    for seed in range(1, _SEEDS + 1):
        sampling = Sampling(seed=seed)
        lengths[seed] = ours.answer(question, tokens, sampling).tokens
        if lengths[seed] == tokens:
            return sampling
    return Sampling(seed=max(lengths, key=lambda seed: lengths[seed]))


def beside(plan: Plan, systems: Mapping[str, ChatSystem], question: Question, sampling: Sampling | None) -> Json:
    """The rates of all systems for answers of one length, ours first once to know how long it gets."""
    tokens = systems[OURS].answer(question, plan.tokens, sampling).tokens
    if tokens < LEAST:
        raise RuntimeError(f"the answer ended after {tokens} tokens; {LEAST} are needed to time it: ask for less text")
    rates = timed(plan, systems, question, tokens, sampling)
    ours = rates[OURS]
    return {
        name: {**one.to_json(), **({} if name == OURS else {"ours_against": ours.against(one)})}
        for name, one in rates.items()
    }


def timed(
    plan: Plan, systems: Mapping[str, ChatSystem], question: Question, tokens: int, sampling: Sampling | None
) -> dict[str, Rates]:
    """All rounds of all systems, one uncounted first."""

    def answer(system: ChatSystem) -> Answered:
        return system.answer(question, tokens, sampling)

    for system in systems.values():
        answer(system)
    measured = rounds(systems, answer, plan.repetitions, plan.rest_s)
    return {name: Rates(len(question.tokens), _runs(runs)) for name, runs in measured.items()}


def _runs(measured: Sequence[tuple[float, Answered]]) -> tuple[Answered, ...]:
    return tuple(answered for _, answered in measured)
