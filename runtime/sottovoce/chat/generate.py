"""The decoding loop: a prompt's tokens in, one step a token out, the same over every engine.

Knows tokens, the sampler, stop conditions and the order of things; knows nothing of messages, templates or formats.
Whoever closes the generator, or interrupts it, at any moment leaves engine and cache fit for the next prompt.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from sottovoce.chat.lookup import PromptLookup
from sottovoce.chat.options import ChatOptions
from sottovoce.chat.prefix import PrefixCache
from sottovoce.chat.protocols import Constraint
from sottovoce.chat.sampling import Sampler
from sottovoce.chat.text import TextStream
from sottovoce.chat.types import FinishReason, Usage
from sottovoce.errors import InputError


@dataclass(frozen=True, slots=True)
class Step:
    """One token more, and the text that it made final: often none, sometimes that of tokens before.

    The last step has `finish_reason` and `usage`, the others have neither. A token that ended the answer is not counted
    in `usage`.
    """

    text: str
    token: int
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


def generate(
    prefix: PrefixCache,
    prompt: Sequence[int],
    options: ChatOptions,
    constraint: Constraint | None = None,
    show: frozenset[int] = frozenset(),
) -> Generator[Step, None, None]:
    """Answer `prompt`, one step a token, until the model ends it ("stop"), a stop string or the constraint does (also
    "stop"), or `max_tokens` or the context are full ("length").

    `show` are control tokens whose spelling is text all the same, such as the marks of a tool call in some
    vocabularies. Raises InputError for a prompt that is empty or longer than the context, EngineError where the engine
    fails; what was evaluated until then stays in `prefix`.
    """
    context = prefix.engine.context
    if not prompt:
        raise InputError("the prompt is empty; there is nothing to answer")
    if len(prompt) > context:
        raise InputError(f"the prompt is {len(prompt)} tokens, the context is {context}; shorten it")
    return _Answer(prefix, prompt, options, constraint, show).steps()


class _Answer:
    """One answer in the making. `room` is how many tokens it may have."""

    def __init__(
        self,
        prefix: PrefixCache,
        prompt: Sequence[int],
        options: ChatOptions,
        constraint: Constraint | None,
        show: frozenset[int],
    ) -> None:
        self._prefix, self._prompt, self._constraint, self._show = prefix, prompt, constraint, show
        self._vocabulary = prefix.engine.vocabulary
        self._ends = self._vocabulary.ends
        self._sampler = Sampler(options, self._vocabulary.size, prompt)
        self._text = TextStream(options.stop)
        self._lookup = PromptLookup(options.speculate, prompt) if options.speculate else None
        room = prefix.engine.context - len(prompt) + 1  # the last token needs no position
        self._room = min(options.max_tokens or room, room)
        self._said = 0
        self._cached = 0
        self._finished = False

    def steps(self) -> Generator[Step, None, None]:
        """Evaluate what is certain with a draft behind it; choose at each place for as long as the draft was right."""
        prefix = self._prefix
        self._cached = prefix.reuse(self._prompt)
        unread = self._prompt[self._cached :]
        if len(unread) > 1:
            # All but the last token first, as when they are in the cache already: kernels for one row and for many
            # round differently, and the same question would be answered differently when it is asked again.
            prefix.evaluate(unread[:-1])
        pending = [unread[-1], *(yield from self._forced())]
        draft: Sequence[int] = ()
        while not self._finished:
            logits = prefix.evaluate([*pending, *draft], outputs=len(draft) + 1)
            right = 0  # how much of the draft is what was chosen
            while not self._finished:
                token = self._sampler.choose(logits[right], self._constraint.mask() if self._constraint else None)
                yield self._take(token)
                pending = [token, *(yield from self._forced())] if self._constraint else [token]
                hits = _common(pending, draft[right:]) if draft else 0
                right += hits
                if hits < len(pending):
                    break
            pending = pending[hits:]
            if draft:
                self._verified(draft, right)
            if self._lookup and not self._finished:
                draft = self._lookup.draft(self._room - self._said - 1)

    def _forced(self) -> Generator[Step, None, list[int]]:
        """The tokens that the constraint leaves no choice about."""
        taken: list[int] = []
        while self._constraint and not self._finished and (tokens := self._constraint.forced()):
            for token in tokens:
                taken.append(token)
                yield self._take(token)
                if self._finished:
                    break
        return taken

    def _take(self, token: int) -> Step:
        if token in self._ends:
            return self._last(self._text.finish(), token, "stop")
        self._said += 1
        self._sampler.accept(token)
        if self._lookup:
            self._lookup.append(token)
        if self._constraint:
            self._constraint.accept(token)
        hidden = self._vocabulary.is_control(token) and token not in self._show
        text = self._text.push(b"" if hidden else self._vocabulary.token_bytes(token))
        if self._text.stopped:
            return self._last(text, token, "stop")
        if self._constraint and self._constraint.is_complete:
            return self._last(text + self._text.finish(), token, "stop")
        if self._said >= self._room:
            return self._last(text + self._text.finish(), token, "length")
        return Step(text, token)

    def _last(self, text: str, token: int, reason: FinishReason) -> Step:
        self._finished = True
        return Step(text, token, reason, Usage(len(self._prompt), self._said, self._cached))

    def _verified(self, draft: Sequence[int], right: int) -> None:
        """Learn from a draft of which the first `right` tokens were chosen, and forget the others."""
        if self._lookup:
            self._lookup.learn(len(draft), right)
        if right < len(draft):
            self._prefix.truncate(self._prefix.engine.length - len(draft) + right)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
