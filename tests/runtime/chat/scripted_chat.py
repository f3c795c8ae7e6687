"""A chat engine that says what a script says: every logit is a function of the tokens so far."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import EngineError, InputError

Float = NDArray[np.float32]
Script = Callable[[Sequence[int]], Float]  # all tokens evaluated so far -> (vocabulary,) logits after the last

WORDS = ("the ", "and ", "Hello", " world", "stop", "ing", '{"', '":', "é", "日本", "語", "👍🏽")
CONTROLS = ("<bos>", "<end>", "<tool>", "</tool>")
BOS, END, TOOL, TOOL_END = range(256 + len(WORDS), 256 + len(WORDS) + len(CONTROLS))
SIZE = TOOL_END + 1


@dataclass(frozen=True)
class ScriptedVocabulary:
    """All 256 bytes, then some words, then control tokens."""

    words: Sequence[bytes] = tuple(word.encode() for word in WORDS)
    controls: Sequence[str] = CONTROLS
    bos: int | None = BOS
    adds_bos: bool = True
    ends: frozenset[int] = frozenset({END})
    unused: int = 0  # tokens more, that stand for nothing

    @property
    def size(self) -> int:
        return 256 + len(self.words) + len(self.controls) + self.unused

    def encode(self, text: str, *, special: bool) -> list[int]:
        """The longest word that fits, else one byte."""
        spelling: Mapping[bytes, int] = {word: 256 + at for at, word in enumerate(self.words)}
        if special:
            first = 256 + len(self.words)
            spelling = {**spelling, **{name.encode(): first + at for at, name in enumerate(self.controls)}}
        rest, tokens = text.encode(), []
        while rest:
            word = max((one for one in spelling if rest.startswith(one)), key=len, default=rest[:1])
            tokens.append(spelling.get(word, rest[0]))
            rest = rest[len(word) :]
        return tokens

    def token_bytes(self, token: int) -> bytes:
        if token < 256:
            return bytes([token])
        pieces = [*self.words, *(name.encode() for name in self.controls)]
        return pieces[token - 256] if token - 256 < len(pieces) else b""

    def is_control(self, token: int) -> bool:
        return 0 <= token - 256 - len(self.words) < len(self.controls)


def text_of(tokens: Sequence[int]) -> str:
    """All of it, control tokens spelled out."""
    return b"".join(map(ScriptedVocabulary().token_bytes, tokens)).decode("utf-8", "replace")


def saying(text: str, prompt: Sequence[int], size: int = SIZE, sure: float = 40.0) -> Script:
    """Answers `prompt` with `text`, then the end, whatever is sampled."""
    answer = [*ScriptedVocabulary().encode(text, special=True), END]

    def script(tokens: Sequence[int]) -> Float:
        logits = np.zeros(size, np.float32)
        at = len(tokens) - len(prompt)
        logits[answer[at] if 0 <= at < len(answer) else END] = sure
        return logits

    return script


def dreaming(salt: int = 0, size: int = SIZE, spread: float = 3.0, memory: int = 4) -> Script:
    """Pseudo-random logits from the last `memory` tokens. They hardly ever end an answer."""

    def script(tokens: Sequence[int]) -> Float:
        random = np.random.Generator(np.random.PCG64([salt, *tokens[-memory:]]))
        logits = (random.random(size) * 4 * spread).astype(np.float32)
        logits[list(ScriptedVocabulary().ends)] -= 4 * spread
        return logits

    return script


@dataclass
class ScriptedChat:
    """Fulfils ChatEngine. `runs` counts the tokens of every evaluation. One `breaks` may be set: after so many more
    tokens an evaluation raises the exception, with those tokens kept, as an interrupt between two parts would."""

    script: Script = field(default_factory=dreaming)
    context: int = 512
    vocabulary: ScriptedVocabulary = field(default_factory=ScriptedVocabulary)
    name: str = "scripted 1"
    tokens: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    breaks: tuple[int, BaseException] | None = None
    adapters: list[tuple[Path, float]] = field(default_factory=list)
    closed: bool = False

    @property
    def length(self) -> int:
        return len(self.tokens)

    def evaluate(self, tokens: Sequence[int], *, outputs: int = 1) -> Float:
        if not 1 <= outputs <= len(tokens):
            raise EngineError(f"{outputs} outputs of {len(tokens)} tokens")
        if self.length + len(tokens) > self.context:
            raise InputError(f"{self.length} + {len(tokens)} tokens, the context is {self.context}")
        if self.breaks and self.breaks[0] < len(tokens):
            (kept, error), self.breaks = self.breaks, None
            self.tokens += tokens[:kept]
            raise error
        self.runs.append(len(tokens))
        self.tokens += tokens
        places = range(self.length - outputs + 1, self.length + 1)
        return np.stack([self.script(self.tokens[:place]) for place in places])

    def truncate(self, length: int) -> None:
        del self.tokens[length:]

    def save_state(self) -> bytes:
        return b"scripted" + json.dumps(self.tokens).encode()

    def load_state(self, state: bytes | memoryview, length: int) -> None:
        self.tokens = []
        found = bytes(state)
        if not found.startswith(b"scripted"):
            raise InputError("the state is not one of this engine")
        self.tokens = json.loads(found[8:])[:length]

    def attach(self, adapter: Path, scale: float) -> None:
        self.adapters.append((adapter, scale))
        self.tokens = []

    def detach(self, keep: int = 0) -> None:
        self.adapters, self.tokens = self.adapters[:keep], []

    def embed(self, tokens: Sequence[int]) -> Float:
        raise InputError("the scripted model is not made for embeddings")

    def close(self) -> None:
        self.closed = True
