"""Guessing what comes next from what was said before: prompt lookup (Saxena 2023, "Prompt Lookup Decoding").

Answers about a text repeat pieces of it. The last tokens are looked up in prompt and answer; what followed them there
is the draft, which one evaluation verifies. Knows token ids only, and decides by counts alone, never by a clock: how
tokens are grouped can touch the last bits of logits, and the same seed has to give the same text.
"""

import math
from collections.abc import Iterable, Sequence

# One more token in an evaluation costs this share of an evaluation of one: measured with a model of 135M in llama.cpp,
# which computes more than it reads. It is less for larger models, whose drafts could be longer.
_COST = 0.75
_PROBE = 32  # tokens after which one is drafted where it does not pay
_MEMORY = 0.8  # how much of the old rate of acceptance stays after a draft
_HOPE = (0.5, 0.7, 0.9)  # that rate before the first draft, for a match of one token, of two, of three
LONGEST = len(_HOPE)  # tokens looked up at most


class PromptLookup:
    """Drafts of at most `most` tokens.

    Which length pays is known from how often drafts were right: the n-th token of a draft is right with probability
    rate^n and costs `_COST`. Where even the first does not pay, one is tried now and then.
    """

    def __init__(self, most: int, prompt: Iterable[int]) -> None:
        self._most = most
        self._tokens: list[int] = []
        self._following: dict[tuple[int, ...], int] = {}  # the last tokens: where what followed them begins
        self._rates = list(_HOPE)
        self._matched = 0  # tokens that the last draft was found by
        self._since = 0  # tokens, since the last draft
        for token in prompt:
            self.append(token)

    def append(self, token: int) -> None:
        """One more token that is certain."""
        tokens = self._tokens
        end = len(tokens)
        for length in range(1, min(LONGEST, end) + 1):
            self._following[tuple(tokens[end - length :])] = end
        tokens.append(token)
        self._since += 1

    def draft(self, most: int) -> Sequence[int]:
        """At most `most` tokens that may come next; often none."""
        for length in range(min(LONGEST, len(self._tokens)), 0, -1):
            begin = self._following.get(tuple(self._tokens[-length:]))
            if begin is not None:
                self._matched = length
                return self._tokens[begin : begin + min(most, self._paying(self._rates[length - 1]))]
        return ()

    def learn(self, drafted: int, right: int) -> None:
        """The last draft had `drafted` tokens, of which the first `right` were chosen."""
        self._since = 0
        rate = right / min(drafted, right + 1)  # of the tokens that were looked at
        at = self._matched - 1
        self._rates[at] = _MEMORY * self._rates[at] + (1 - _MEMORY) * rate

    def _paying(self, rate: float) -> int:
        if rate <= _COST:
            return int(self._since >= _PROBE)
        return int(min(self._most, math.log(_COST) / math.log(rate))) if rate < 1 else self._most
