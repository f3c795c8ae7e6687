"""Generation under a constraint with logits that know nothing, for tests: whatever they are, the grammar must hold."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tests.runtime.chat.bpe_vocabulary_case import vocabulary

from sottovoce.chat.constraint import GrammarConstraint


class Chooser(Protocol):
    def __call__(self, allowed: NDArray[np.int64], step: int) -> int: ...


def at_random(seed: int) -> Chooser:
    """Any allowed token; after a while one that brings the end nearer, so that strings do end."""
    generator = np.random.default_rng(seed)
    closing = [
        token for mark in ('"', "}", "]", '"}', '"]', "</s>") for token in vocabulary().encode(mark, special=True)
    ]

    def choose(allowed: NDArray[np.int64], step: int) -> int:
        nearer = [token for token in closing if token in allowed] if step > 60 else []
        return int(generator.choice(nearer or allowed))

    return choose


def first_of(*wanted: str) -> Chooser:
    """Tokens of `wanted` one after the other where they are allowed, else the lowest allowed token."""
    script = [token for text in wanted for token in vocabulary().encode(text, special=True)]

    def choose(allowed: NDArray[np.int64], step: int) -> int:
        while script and script[0] not in allowed:
            script.pop(0)
        return script.pop(0) if script else int(allowed[0])

    return choose


def generate(
    constraint: GrammarConstraint, choose: Chooser, limit: int = 600, use_forced: bool = True
) -> tuple[str, bool]:
    """The text and whether it came to its end, by the order in which the decoding loop asks a constraint."""
    model = vocabulary()
    tokens: list[int] = []
    while len(tokens) < limit and not constraint.is_complete:
        forced = list(constraint.forced()) if use_forced else []
        if forced:
            for token in forced:
                assert constraint.mask()[token], "a forced token is not allowed"
                constraint.accept(token)
            tokens += forced
            continue
        mask = constraint.mask()
        assert mask.shape == (model.size,) and mask.any(), "nothing may follow, yet the answer is not complete"
        token = choose(np.flatnonzero(mask), len(tokens))
        if token in model.ends:
            return _text(tokens), True
        constraint.accept(token)
        tokens.append(token)
    return _text(tokens), constraint.is_complete


def _text(tokens: list[int]) -> str:
    return b"".join(map(vocabulary().token_bytes, tokens)).decode()
