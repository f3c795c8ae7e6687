"""Whether a packed language model is as good as its source: the same text, and limits on what may be lost.

Knows a scorecard and the limits of a target or a command line. Fails closed, as the gate of speech does: what could not
be measured, and a tokenizer or a template that differs, are reasons not to pass, whatever the limits.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.errors import InputError
from sottovoce_compiler.report.chat_card import ChatCard
from sottovoce_compiler.report.gate import Check, GateError
from sottovoce_compiler.report.table import Table


@dataclass(frozen=True, slots=True)
class ChatGate:
    """`max_kl` is the mean KL divergence from the source in nats, `max_perplexity_increase` a fraction of the source's
    perplexity, `min_top1` the share of positions with the same likeliest token.
    """

    max_kl: float = 0.15
    max_perplexity_increase: float = 0.15
    min_top1: float = 0.8

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"gate limit {name} is {value!r}; expected a number")

    def check(self, card: ChatCard) -> "ChatVerdict":
        """Holds a scorecard to the limits."""
        scores = card.scores
        if scores is None:
            return ChatVerdict(self, card, ())
        allowed = scores.source_perplexity * (1 + self.max_perplexity_increase)
        checks = (
            Check("mean KL divergence", 0.0, scores.kl, self.max_kl),
            Check("perplexity", scores.source_perplexity, scores.perplexity, allowed),
            # A share that must not fall is a loss that must not grow.
            Check("share of other likeliest tokens", 0.0, 1 - scores.top1, 1 - self.min_top1),
        )
        return ChatVerdict(self, card, checks)


@dataclass(frozen=True, slots=True)
class ChatVerdict:
    """What was measured, what it was held to, and every reason why it is not good enough."""

    gate: ChatGate
    card: ChatCard
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Everything that speaks against the artifact; empty where the gate holds."""
        return tuple(self._reasons())

    def require(self) -> None:
        """Raises `GateError` unless the gate holds."""
        if self.reasons:
            raise GateError(self)

    def tables(self) -> list[Table]:
        """What was measured, beside its limits."""
        return self.card.tables({check.name: check for check in self.checks})

    def to_json(self) -> dict[str, Any]:
        """JSON values: the limits, each check, the reasons."""
        return {
            "passed": not self.reasons,
            "limits": dataclasses.asdict(self.gate),
            "checks": [check.to_json() for check in self.checks],
            "reasons": list(self.reasons),
        }

    def _reasons(self) -> Iterator[str]:
        if not self.checks:
            yield "nothing was measured: the text is too short"
        for check in self.checks:
            if not check.passed:
                yield f"{check.name} is {check.reached:.4g}, {check.limit:.4g} allowed"
        for what, same in (("tokenizer", self.card.tokenizer), ("chat template", self.card.template)):
            if same is not None and same.equal < same.asked:
                yield f"the {what} differs from the source's on {same.asked - same.equal} of {same.asked} texts"
                if same.first:
                    yield f"first: {same.first}"


def chat_gate_from(limits: Mapping[str, float]) -> ChatGate:
    """The gate with these limits, and defaults for the others. Raises InputError for one that is not of chat."""
    known = [field.name for field in dataclasses.fields(ChatGate)]
    if unknown := sorted(set(limits) - set(known)):
        raise InputError(f"gate limit {unknown[0]!r} is not for language models; those are {', '.join(known)}")
    return ChatGate(**limits)
