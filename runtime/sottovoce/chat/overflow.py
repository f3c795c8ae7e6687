"""What is left out when messages do not fit: nothing, with an error; or whole turns, the oldest first.

Knows roles and a function that counts tokens; knows no template and no tokenizer.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sottovoce.chat.types import Message
from sottovoce.errors import InputError

ANSWER = 256  # tokens kept free for an answer of unknown length
_PARTS = 4  # of the room: the cut moves in steps of one such part
_LASTING = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Messages that fit; `tokens` of them as counted, and how many messages were `dropped`."""

    messages: tuple[Message, ...]
    tokens: int
    dropped: int


def reserve_for(max_tokens: int | None, context: int) -> int:
    """Tokens to keep free for the answer: what was asked for, at most half of the context."""
    return min(max_tokens or ANSWER, context // 2)


def fit(
    messages: Sequence[Message], count: Callable[[Sequence[Message]], int], context: int, reserve: int, policy: str
) -> Fitted:
    """Messages of which a prompt can be made: all of them where they fit.

    "error" needs room for one token of an answer. "drop_oldest" drops the oldest turns until `reserve` tokens are free,
    or fewer where the last turn is so long. A turn is a user's message with all that follows up to the next one; system
    messages and the last turn stay. The cut moves a quarter of the room at a time: so it stays where it is for some
    turns, and the cache stays of use.

    Raises InputError naming the tokens needed and the context, where the policy is "error" or what stays is too long.
    """
    needed = count(messages)
    if needed + (reserve if policy == "drop_oldest" else 1) <= context:
        return Fitted(tuple(messages), needed, 0)
    if policy != "drop_oldest":
        raise InputError(
            f"the messages are {needed} tokens and an answer needs room, the context is {context}; shorten them, "
            'or let the oldest be left out with overflow="drop_oldest"'
        )
    return _dropped(messages, count, needed, context, context - reserve)


def _dropped(
    messages: Sequence[Message], count: Callable[[Sequence[Message]], int], needed: int, context: int, room: int
) -> Fitted:
    starts = _turns(messages)
    sizes: dict[int, int] = {}

    def size(cut: int) -> int:
        if cut not in sizes:
            sizes[cut] = count(_without(messages, starts[cut]))
        return sizes[cut]

    last = len(starts) - 1
    if size(last) >= context:
        raise InputError(
            f"the last message, with the system message, is {size(last)} tokens, the context is {context}; shorten it"
        )
    part = max(1, room // _PARTS)
    rounded = needed - -(-(needed - room) // part) * part
    goal = next((one for one in (rounded, room) if size(last) <= one), 0)
    cut = bisect.bisect_left(range(last), True, key=lambda at: size(at) <= goal)
    kept = tuple(_without(messages, starts[cut]))
    return Fitted(kept, size(cut), len(messages) - len(kept))


def _turns(messages: Sequence[Message]) -> list[int]:
    """Where turns begin. What stands before the first user's message is a turn too; without any, all is one."""
    starts = [at for at, message in enumerate(messages) if message.get("role") == "user"]
    before = [at for at in range(starts[0] if starts else 1) if messages[at].get("role") not in _LASTING]
    return [*before[:1], *starts] or [0]


def _without(messages: Sequence[Message], start: int) -> list[Message]:
    return [one for at, one in enumerate(messages) if at >= start or one.get("role") in _LASTING]
