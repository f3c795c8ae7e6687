"""Time to the first token of a second turn: with what was computed before, after a reload from a file, and cold.

The reload is a new Chat: reading the session counts, reading the model is told apart, as a cold start needs it too.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from chat_plan import ChatBundle, ChatModel, Plan
from chat_prompts import STORY, Message, asked, story

from chat_stages import Json, say
from sottovoce.chat.chat import Chat

_ANSWER = 32  # tokens of the first turn's answer
_NEXT = "Thank you. And what happened then?"


def run(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Json:
    """Rounds of warm, cold, reloaded; medians and ratios. Nothing for a model without a chat template."""
    found: dict[str, list[float]] = {"warm_s": [], "cold_s": [], "reloaded_s": [], "load_model_s": [], "save_s": []}
    with Chat(bundle.path, threads=plan.threads, context=plan.context) as chat, tempfile.TemporaryDirectory() as folder:
        chat.load()
        if chat._ready.template is None:
            return {"left_out": "no chat template"}
        text = story(plan.history - _ANSWER, lambda found: chat.count_tokens(asked(STORY, found)))
        file, history = Path(folder) / "session", asked(STORY, text)
        messages, tokens = list[Message](), 0
        for number in range(plan.repetitions + 1):
            say(f"  round {number} of {plan.repetitions}")
            chat._ready.prefix.truncate(0)
            answer = chat.chat(history, max_tokens=_ANSWER, temperature=0)
            messages = [*history, {"role": "assistant", "content": answer.text}]
            began = time.perf_counter()
            chat.save_session(file, messages)
            saved = time.perf_counter() - began
            messages.append({"role": "user", "content": _NEXT})
            time.sleep(plan.rest_s)
            warm = _first_token(chat, messages)
            chat._ready.prefix.truncate(0)
            cold = _first_token(chat, messages)
            load, reloaded = _reloaded(plan, bundle, file)
            tokens = chat.count_tokens(messages)
            if number:  # the first fills caches of pages and of code
                for name, seconds in zip(found, (warm, cold, reloaded, load, saved), strict=True):
                    found[name].append(seconds)
        size = file.stat().st_size
    return {"prompt_tokens": tokens, "session_bytes": size, **_medians(found), "seconds": found}


def _first_token(chat: Chat, messages: Sequence[Message]) -> float:
    began = time.perf_counter()
    stream = chat.stream(messages, temperature=0, max_tokens=4)
    next(stream)
    took = time.perf_counter() - began
    stream.close()
    return took


def _reloaded(plan: Plan, bundle: ChatBundle, file: Path) -> tuple[float, float]:
    """Seconds to load the model, and from there to the first token, reading the session included."""
    began = time.perf_counter()
    with Chat(bundle.path, threads=plan.threads, context=plan.context) as chat:
        chat.load()
        loaded = time.perf_counter()
        messages = [*chat.load_session(file), {"role": "user", "content": _NEXT}]
        read = time.perf_counter() - loaded
        return loaded - began, read + _first_token(chat, messages)


def _medians(found: dict[str, list[float]]) -> Json:
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    return {
        **medians,
        "warm_sooner": medians["cold_s"] / medians["warm_s"],
        "reloaded_sooner": medians["cold_s"] / medians["reloaded_s"],
    }
