"""Tokens a second through Chat.stream beside a bare loop over llama.cpp: same file, same threads, same prompt.

Rounds take turns; the cache is empty before each. Ours is timed from the messages to the last piece of text, the others
from tokens to tokens.
"""

from functools import partial

from cached_files import forget
from chat_plan import ChatBundle, ChatModel, Plan
from chat_prompts import STORY, asked, story
from peers.chat import (
    LLAMA_CPP_PYTHON,
    OURS,
    RAW,
    RAW_DEFAULTS,
    Made,
    Question,
    Sampling,
    available,
    create_chat,
)
from peers.sottovoce_chat import SottovoceChat

from chat_stages import Json
from chat_stages.openings import OPENINGS, Case, over_openings, rated

LEAST = 24  # tokens: a shorter answer says nothing of a rate
_SEEDS = 8  # of which the first is taken whose answer is long enough


def run(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Json:
    """Each prompt greedily, and the shortest one with sampling."""
    made = Made(bundle, plan.threads, plan.context, plan.work)
    makers = {name: partial(create_chat, name, made) for name in available((OURS, RAW, RAW_DEFAULTS, LLAMA_CPP_PYTHON))}
    ours = SottovoceChat(made)
    ours.load()
    cases = _cases(plan, ours)
    ours.close()
    forget(bundle.path, *plan.work.glob("*.gguf"))
    rates, described = over_openings(plan, makers, cases)
    return {"systems": described, "openings": OPENINGS, **rated(rates, OURS)}


def _cases(plan: Plan, ours: SottovoceChat) -> dict[str, Case]:
    """Answers as long as ours are, which may end before the others would."""
    questions = {wanted: ask(ours, wanted) for wanted in plan.prompts}
    least = questions[min(plan.prompts)]
    wanted: dict[str, tuple[Question, Sampling | None]] = {
        **{f"greedy {length}": (question, None) for length, question in questions.items()},
        "sampled": (least, long_enough(ours, least, plan.tokens)),
    }
    cases = {}
    for name, (question, sampling) in wanted.items():
        tokens = ours.answer(question, plan.tokens, sampling).tokens
        if tokens < LEAST:
            raise RuntimeError(f"the answer ended after {tokens} tokens; {LEAST} are needed to time it: ask for less")
        cases[name] = Case(question, tokens, sampling)
    return cases


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
