"""Tokens a second of an answer held to a schema, beside the same number of free tokens to the same prompt.

The prompt is in the cache before each, so that what is timed is the answer: tokens that the grammar leaves no choice
about are evaluated together with the prompt, and the first piece of text comes before it was.
"""

import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

from chat_plan import ChatBundle, ChatModel, Plan
from chat_prompts import SCHEMAS, asked, response_format

from chat_stages import Json, say
from sottovoce.chat.chat import Chat

_MOST = 600  # tokens; each schema ends before
_ROUNDS = 5  # at most: answers are long
_SAMPLED: Mapping[str, Any] = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": 7}
_GREEDY: tuple[str, Mapping[str, Any]] = ("greedy", {"temperature": 0})
_WAYS = {"numbers": (_GREEDY, ("sampled", _SAMPLED)), "records": (_GREEDY,)}


def run(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Json:
    """Both schemas greedily, and the one of few certain tokens with sampling."""
    found: Json = {}
    with Chat(bundle.path, threads=plan.threads, context=plan.context) as chat:
        chat.load()
        if chat._ready.template is None:
            return {"left_out": "no chat template"}
        for name, (request, schema) in SCHEMAS.items():
            for way, options in _WAYS[name]:
                say(f"  {name}, {way}")
                constraint = {"response_format": response_format(schema)}
                began = time.perf_counter()
                chat._ready.constraints.for_response(constraint["response_format"])
                made_s = time.perf_counter() - began
                found[f"{name}, {way}"] = _beside(plan, chat, asked(request), options, constraint)
                if way == "greedy":  # the other has the grammar from here
                    found[f"{name}, {way}"]["grammar_s"] = made_s
    return found


def _beside(plan: Plan, chat: Chat, messages: Any, options: Mapping[str, Any], constraint: Mapping[str, Any]) -> Json:
    tokens, _, text = _answer(chat, messages, {**options, **constraint, "max_tokens": _MOST})
    json.loads(text)
    # Free answers end where they like: an end cannot be chosen, so that there are as many tokens.
    free = {**options, "logit_bias": dict.fromkeys(chat._ready.engine.vocabulary.ends, -100.0), "max_tokens": tokens}
    _answer(chat, messages, free)
    pairs = []
    for _ in range(min(plan.repetitions, _ROUNDS)):
        time.sleep(plan.rest_s)
        held = _answer(chat, messages, {**options, **constraint, "max_tokens": _MOST})
        time.sleep(plan.rest_s)
        pairs.append((held[:2], _answer(chat, messages, free)[:2]))
    return {
        "tokens": tokens,
        "constrained_tokens_per_s": statistics.median(held[0] / held[1] for held, _ in pairs),
        "free_tokens_per_s": statistics.median(free[0] / free[1] for _, free in pairs),
        "against_free": statistics.median((h[0] / h[1]) / (f[0] / f[1]) for h, f in pairs),
        "seconds": [[held[1], free[1]] for held, free in pairs],
    }


def _answer(chat: Chat, messages: Any, options: Mapping[str, Any]) -> tuple[int, float, str]:
    """Tokens, seconds and text of an answer whose prompt is in the cache."""
    began = time.perf_counter()
    found = chat.chat(messages, **options)
    return found.usage.completion_tokens, time.perf_counter() - began, found.text
