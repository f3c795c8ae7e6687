"""Prompt lookup on and off: a task that copies from its prompt, and one that does not."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from chat_plan import ChatBundle, ChatModel, Plan
from chat_prompts import COPY, NORMAL, PROGRAM, asked

from chat_stages import Json, say
from sottovoce.chat.chat import Chat

AHEAD = 8  # tokens guessed at most


def run(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Json:
    """Seconds of an answer with the prompt in the cache, greedy; and whether both ways gave the same text."""
    found: Json = {"ahead": AHEAD}
    with Chat(bundle.path, threads=plan.threads, context=plan.context) as chat:
        chat.load()
        if chat._ready.template is None:
            return {"left_out": "no chat template"}
        for name, messages in (("copying", asked(COPY, PROGRAM)), ("normal", asked(NORMAL))):
            say(f"  {name}")
            found[name] = _beside(plan, chat, messages)
    return found


def _beside(plan: Plan, chat: Chat, messages: Sequence[Any]) -> Json:
    _answer(plan, chat, messages, 0)  # with the prompt in the cache, its last token is evaluated alone, which counts
    texts = [_answer(plan, chat, messages, ahead)[2] for ahead in (0, AHEAD)]
    tokens, pairs = 0, []
    for _ in range(plan.repetitions):
        timed = []
        for ahead in (0, AHEAD):
            time.sleep(plan.rest_s)
            tokens, seconds, _ = _answer(plan, chat, messages, ahead)
            timed.append(tokens / seconds)
        pairs.append(timed)
    return {
        "tokens": tokens,
        "same_text": texts[0] == texts[1],
        "off_tokens_per_s": statistics.median(off for off, _ in pairs),
        "on_tokens_per_s": statistics.median(on for _, on in pairs),
        "on_against_off": statistics.median(on / off for off, on in pairs),
        "tokens_per_s": pairs,
    }


def _answer(plan: Plan, chat: Chat, messages: Sequence[Any], ahead: int) -> tuple[int, float, str]:
    began = time.perf_counter()
    found = chat.chat(messages, temperature=0, max_tokens=plan.tokens, speculate=ahead)
    return found.usage.completion_tokens, time.perf_counter() - began, found.text
