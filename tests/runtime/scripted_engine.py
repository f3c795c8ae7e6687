"""An engine that says what a script says: every logit is a function of the row's audio and of its own past."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sottovoce.decoding.grammar import Tokens
from sottovoce.errors import EngineError

ORDINARY, STAMPS = 10, 1501
END, START, EN, DE, TRANSLATE, TRANSCRIBE, PREVIOUS, NO_SPEECH, NO_STAMPS, STAMP = range(ORDINARY, ORDINARY + 10)
VOCABULARY = STAMP + STAMPS
TOKENS = Tokens(
    end=END,
    start=START,
    translate=TRANSLATE,
    transcribe=TRANSCRIBE,
    start_of_previous=PREVIOUS,
    no_speech=NO_SPEECH,
    no_timestamps=NO_STAMPS,
    timestamp_begin=STAMP,
    languages={"en": EN, "de": DE},
    suppress=(9,),
    suppress_at_begin=(8, END),
)
FRAME = 320

Float = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Script = Callable[[Float, Sequence[int]], Float]  # the clip and all tokens fed so far -> (VOCABULARY,) logits


def at(seconds: float) -> int:
    """The timestamp token for a time."""
    return STAMP + round(seconds / 0.02)


def after_prompt(fed: Sequence[int]) -> tuple[int, ...] | None:
    """What was chosen since the prompt; None while the prompt is not complete."""
    first = fed.index(START) + 1
    while first < len(fed) and END < fed[first] < STAMP:
        first += 1
    return tuple(fed[first:]) if fed[-1] != START else None


def saying(tokens: Sequence[int], fed: Sequence[int], sure: float = 12.0) -> Float:
    """Logits that follow `tokens`, then the end."""
    logits = np.zeros(VOCABULARY, np.float32)
    done = after_prompt(fed)
    if done is not None:
        logits[tokens[len(done)] if len(done) < len(tokens) else END] = sure
    return logits


@dataclass
class ScriptedBatch:
    """`log` counts the rows of every run, of this batch and of its forks."""

    script: Script
    clips: list[Float]
    capacity: int
    log: list[int]
    past: list[list[int]] = field(default_factory=list)
    newest: int = 0  # tokens of the last run

    def __post_init__(self) -> None:
        self.past = self.past or [[] for _ in self.clips]

    @property
    def rows(self) -> int:
        return len(self.clips)

    def run(self, tokens: np.ndarray, logit_positions: Sequence[int]) -> Float:
        assert tokens.shape[0] == self.rows and tokens.dtype == np.int64
        if len(self.past[0]) + tokens.shape[1] > self.capacity:
            raise EngineError(f"{len(self.past[0])} + {tokens.shape[1]} tokens exceed {self.capacity}")
        self.log.append(self.rows)
        before, self.newest = len(self.past[0]), tokens.shape[1]
        out = []
        for clip, past, new in zip(self.clips, self.past, tokens.tolist(), strict=True):
            past += new
            out.append([self.script(clip, past[: before + position + 1]) for position in logit_positions])
        return np.array(out, np.float32)

    def alignment(self) -> Float:
        """One head that hears a token every 0.24 s."""
        length, keys = len(self.past[0]), max(-(-clip.size // FRAME) for clip in self.clips)
        weights = np.full((self.rows, 1, length, keys), 1e-3, np.float32)
        for i in range(length):
            weights[:, 0, i, 12 * i : 12 * (i + 1)] = 1
        return weights[:, :, length - self.newest :]

    def restart(self) -> None:
        self.past = [[] for _ in self.clips]

    def fork(self, rows: Sequence[int], *, past: bool) -> "ScriptedBatch":
        kept = [list(self.past[row]) if past else [] for row in rows]
        return ScriptedBatch(self.script, [self.clips[row] for row in rows], self.capacity, self.log, kept)

    def reorder(self, rows: Sequence[int]) -> None:
        self.past = [list(self.past[row]) for row in rows]


@dataclass
class ScriptedEngine:
    """`started` has the clips of every batch."""

    script: Script
    context: int = 448
    started: list[list[Float]] = field(default_factory=list)
    log: list[int] = field(default_factory=list)

    def load(self) -> None: ...

    def close(self) -> None: ...

    def bytes_per_second(self) -> int:
        return 1 << 20

    def start(self, clips: Sequence[Float], capacity: int) -> ScriptedBatch:
        self.started.append(list(clips))
        return ScriptedBatch(self.script, list(clips), min(capacity, self.context), self.log)
