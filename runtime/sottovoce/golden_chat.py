"""Golden cases of a chat bundle: what its model said to a prompt when it was made, and how its template rendered.

As in `golden`, the device feeds the same tokens and compares probabilities. Knows the loaded parts of a chat; knows
nothing of how cases are chosen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.chat.loading import LoadedChat
from sottovoce.chat.prompt import render
from sottovoce.chat.template import ChatTemplate
from sottovoce.chat.tools import ToolChoice
from sottovoce.chat.types import Message
from sottovoce.errors import BundleError, InputError
from sottovoce.golden import FOLDER, case_names, differences
from sottovoce.manifest import load_json, printable

TEMPLATE_CASE = f"{FOLDER}template.json"
MAX_CASE_BYTES = 4 << 20
MAX_PROMPT, MAX_TOKENS = 4096, 400
PART = 16  # tokens judged at a time: the logits of all of them would not fit beside a model with a large vocabulary
DAY = datetime(2026, 1, 1, 12)  # that templates which ask for the date are told, here and when the case was made

Logprobs = NDArray[np.float64]
Tokens = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChatCase:
    """One golden case: the `tokens` that were chosen after the tokens of `prompt`, their log probabilities, their
    text."""

    prompt: tuple[int, ...]
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, raw: Mapping[str, Any], name: str) -> "ChatCase":
        """Raises BundleError naming the case when it is not one."""
        try:
            prompt, tokens = (tuple(map(_whole, raw[key])) for key in ("prompt", "tokens"))
            case = cls(prompt, str(raw["text"]), tokens, tuple(float(value) for value in raw["logprobs"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{name} is not a golden case: {printable(repr(error))}") from None
        if not 0 < len(prompt) <= MAX_PROMPT or not 0 < len(tokens) <= MAX_TOKENS or len(tokens) != len(case.logprobs):
            counts = f"{len(prompt)} tokens of a prompt, {len(tokens)} after it, {len(case.logprobs)} log probabilities"
            raise BundleError(f"{name} has {counts}")
        if min(prompt + tokens) < 0:
            raise BundleError(f"{name} has the token {min(prompt + tokens)}; none is below 0")
        return case


def check_cases(bundle: Bundle, threads: int, checks: list[str], failures: list[str]) -> None:
    """Re-runs every case of a bundle; what was looked at goes to `checks`, what differs to `failures`."""
    ready = LoadedChat.open(bundle.path, threads, None)
    try:
        for name in case_names(bundle):
            raw = load_json(bundle.read(name), name, MAX_CASE_BYTES)
            if name == TEMPLATE_CASE:
                checks.append(f"{name}: prompts are rendered as they were")
                found = check_template(ready, raw)
            else:
                case = ChatCase.of(raw, name)
                checks.append(f"{name}: {printable(' '.join(case.text.split()))}")
                found = check_case(ready, case)
            failures += [f"{name}: {what}" for what in found]
    finally:
        ready.engine.close()


def check_case(ready: LoadedChat, case: ChatCase) -> list[str]:
    """What differs from the case, one line each."""
    size, context = ready.engine.vocabulary.size, ready.engine.context
    if max(case.prompt + case.tokens) >= size:
        return [f"token {max(case.prompt + case.tokens)} is beyond the vocabulary of {size}"]
    if len(case.prompt) + len(case.tokens) > context:
        return [f"{len(case.prompt)} + {len(case.tokens)} tokens are more than the context of {context}"]
    logprobs, likeliest = score(ready, case.prompt, case.tokens)
    return differences(logprobs, np.array(case.logprobs), likeliest == np.array(case.tokens))


def check_template(ready: LoadedChat, raw: Mapping[str, Any]) -> list[str]:
    """What differs from `{"messages": [...], "rendered": "..."}`, one line."""
    messages, expected = raw.get("messages"), raw.get("rendered")
    if not isinstance(messages, list) or not isinstance(expected, str):
        return ["it is not a rendered conversation: messages and rendered are needed"]
    try:
        found = render_case(ready, messages)
    except InputError as error:
        return [f"the messages are refused: {error}"]
    if found == expected:
        return []
    at = next((at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(found), len(expected)) if at is None else at
    return [f"from character {at} on the prompt is {json.dumps(found[at:][:40])}, not {json.dumps(expected[at:][:40])}"]


def render_case(ready: LoadedChat, messages: Sequence[Message]) -> str:
    """The prompt that `messages` become on `DAY`. Raises InputError as `render`."""
    if ready.template is not None:
        still = ChatTemplate(ready.template.source, special_tokens=ready.template._special_tokens, clock=lambda: DAY)
        ready = replace(ready, template=still)
    return render(ready, messages, ToolChoice("none", ()))


def choose(ready: LoadedChat, prompt: Sequence[int], count: int) -> tuple[int, ...]:
    """At most `count` tokens that the model chooses after `prompt`, each the likeliest; fewer where it ends.

    At least one, the end itself where nothing is said. Raises InputError where the context is too small.
    """
    prefix, tokens = ready.prefix, list[int]()
    prefix.truncate(0)
    logits = prefix.evaluate(list(prompt))
    while True:
        token = int(logits[-1].argmax())
        if token in ready.engine.vocabulary.ends and tokens:
            return tuple(tokens)
        tokens.append(token)
        if len(tokens) >= count or token in ready.engine.vocabulary.ends:
            return tuple(tokens)
        logits = prefix.evaluate([token])


def score(ready: LoadedChat, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[Logprobs, Tokens]:
    """Log probability of each of `tokens` after `prompt`, and the likeliest token in each of their places.

    Plain probabilities over the whole vocabulary, with no token forbidden. Raises InputError where the context is too
    small.
    """
    prefix = ready.prefix
    prefix.truncate(0)
    fed = [*prompt, *tokens[:-1]]
    logprobs, likeliest = [], []
    start = 0
    for first in range(0, len(tokens), PART):
        wanted = tokens[first : first + PART]
        end = len(prompt) + first + len(wanted) - 1
        logits = prefix.evaluate(fed[start:end], outputs=len(wanted)).astype(np.float64)
        start = end
        top = logits.max(axis=-1, keepdims=True)
        shares = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        logprobs.append(shares[np.arange(len(wanted)), np.array(wanted)])
        likeliest.append(logits.argmax(axis=-1))
    return np.concatenate(logprobs), np.concatenate(likeliest)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a token")
    return value
