from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from scripted_engine import (
    EN,
    NO_SPEECH,
    NO_STAMPS,
    START,
    TOKENS,
    TRANSCRIBE,
    VOCABULARY,
    Float,
    ScriptedBatch,
    saying,
)

from sottovoce.decoding import fallback
from sottovoce.decoding.fallback import Attempt, Decoder, RowLimits
from sottovoce.decoding.grammar import Grammar
from sottovoce.decoding.search import Decoded, Prompt, sample
from sottovoce.types import TranscribeOptions

PLAIN = Grammar(TOKENS, timestamps=False)


def text_of(tokens: Sequence[int]) -> str:
    return "".join("abcdefghij"[token] for token in tokens)


def decoded(tokens: str = "abc", logprob: float = -0.1, no_speech: float = 0.0, stopped: str = "end") -> Decoded:
    ids = tuple("abcdefghij".index(letter) for letter in tokens)
    return Decoded(ids, (logprob,) * (len(ids) + 1), no_speech, 0.0, stopped)


GOOD, IMPROBABLE, LOOP = decoded(), decoded("abd", -1.5), decoded("abe", -0.05, stopped="loop")
REPETITIVE = decoded("abcd" * 20, -0.01)
SILENT = decoded("abf", -1.5, no_speech=0.9)
TOO_FAST = decoded("abcjihgdef" * 6, -0.1)
SECONDS = 0.5


@dataclass
class Plan:
    """Stands in for `sample`: what each row gives at each temperature, and a record of what was asked."""

    results: dict[float, dict[int, Decoded]]
    asked: list[tuple[float, list[int], list[int]]] = field(default_factory=list)

    def sample(
        self,
        batch: ScriptedBatch,
        prompt: Prompt,
        grammar: object,
        tokens: object,
        limits: Sequence[int],
        temperature: float,
        seeds: Sequence[int],
    ) -> list[Decoded]:
        rows = [int(clip[0]) for clip in batch.clips]
        assert prompt.ids.shape[0] == len(rows) == len(limits) == len(seeds)
        assert prompt.ids[:, 1].tolist() == rows and list(limits) == [100 + row for row in rows]
        self.asked.append((temperature, rows, list(seeds)))
        return [self.results[temperature][row] for row in rows]


def decode(plan: Plan, rows: int, monkeypatch: pytest.MonkeyPatch, **options: object) -> list[Attempt]:
    monkeypatch.setattr(fallback, "sample", plan.sample)
    chosen = TranscribeOptions(**{"temperature": tuple(plan.results), **options})  # type: ignore[arg-type]
    batch = ScriptedBatch(lambda clip, fed: clip, [np.array([row], np.float32) for row in range(rows)], 9, [])
    prompt = Prompt(np.array([[START, row] for row in range(rows)], np.int64), 0)
    limits = [RowLimits(100 + row, SECONDS, 10 * row) for row in range(rows)]
    return Decoder(TOKENS, PLAIN, chosen, text_of).decode(batch, prompt, limits)


def test_a_row_that_passes_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan({0.0: {0: GOOD}, 0.2: {}})
    (found,) = decode(plan, 1, monkeypatch)
    assert found.decoded is GOOD and not found.failed and not found.silent
    assert [temperature for temperature, *_ in plan.asked] == [0.0]


@pytest.mark.parametrize("bad", [IMPROBABLE, LOOP, REPETITIVE, TOO_FAST])
def test_only_rows_that_fail_are_tried_again_at_the_next_temperature(
    monkeypatch: pytest.MonkeyPatch, bad: Decoded
) -> None:
    plan = Plan({0.0: {0: GOOD, 1: bad, 2: GOOD, 3: bad}, 0.2: {1: bad, 3: GOOD}, 0.4: {1: GOOD}, 0.6: {}})
    found = decode(plan, 4, monkeypatch)
    assert [(temperature, rows) for temperature, rows, _ in plan.asked] == [
        (0.0, [0, 1, 2, 3]),
        (0.2, [1, 3]),
        (0.4, [1]),
    ]
    assert [attempt.decoded for attempt in found] == [GOOD] * 4 and not any(attempt.failed for attempt in found)


def test_a_rows_seed_depends_on_its_name_and_temperature_and_not_on_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan({0.0: {0: GOOD, 1: LOOP, 2: LOOP}, 0.2: {1: LOOP, 2: GOOD}, 0.4: {1: GOOD}})
    decode(plan, 3, monkeypatch, seed=7)
    (_, _, first), (_, _, second), (_, _, third) = plan.asked
    assert len({*first, *second, *third}) == 6
    alone = Plan({0.0: {0: LOOP, 1: LOOP, 2: LOOP}, 0.2: dict.fromkeys(range(3), GOOD)})
    decode(alone, 3, monkeypatch, seed=7)
    assert alone.asked[1][2][1:] == second


def test_a_silent_row_is_not_tried_again_and_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan({0.0: {0: SILENT, 1: LOOP}, 0.2: {1: SILENT}})
    found = decode(plan, 2, monkeypatch)
    assert [attempt.silent for attempt in found] == [True, True]


def test_probable_words_are_kept_whatever_the_no_speech_token_says(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = decode(Plan({0.0: {0: decoded(no_speech=0.99)}}), 1, monkeypatch)
    assert not found.silent and not found.failed


def test_where_all_fail_the_likeliest_that_is_not_broken_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    better, worse = decoded("abg", -1.2), decoded("abh", -1.9)
    plan = Plan({0.0: {0: LOOP}, 0.2: {0: better}, 0.4: {0: REPETITIVE}, 0.6: {0: worse}})
    (found,) = decode(plan, 1, monkeypatch)
    assert found.decoded is better and not found.silent


def test_where_all_are_broken_what_came_before_a_loop_is_kept_if_it_is_probable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (found,) = decode(Plan({0.0: {0: LOOP}, 0.2: {0: TOO_FAST}}), 1, monkeypatch)
    assert found.decoded is LOOP and not found.silent


@pytest.mark.parametrize("bad", [REPETITIVE, TOO_FAST, decoded("abe", -1.5, stopped="loop")])
def test_where_all_are_broken_and_nothing_begins_well_nothing_was_said(
    monkeypatch: pytest.MonkeyPatch, bad: Decoded
) -> None:
    (found,) = decode(Plan({0.0: {0: bad}, 0.2: {0: bad}}), 1, monkeypatch)
    assert found.silent


def test_thresholds_are_those_of_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    lenient = {"log_prob_threshold": -2.0, "compression_ratio_threshold": 99.0}
    for row in (IMPROBABLE, decoded("abcd" * 10, -0.01), SILENT):
        (found,) = decode(Plan({0.0: {0: row}}), 1, monkeypatch, **lenient)
        assert not found.failed and not found.silent
    (found,) = decode(Plan({0.0: {0: SILENT}}), 1, monkeypatch, no_speech_threshold=0.95)
    assert found.failed and not found.silent


def script(clip: Float, fed: Sequence[int]) -> Float:
    """Sure of itself on clip 0, in doubt on clip 1; clip 2 is heard as silence."""
    logits = saying([1, 2, 3, int(clip[0])], fed, 12.0 if clip[0] == 0 else 1.0)
    logits[NO_SPEECH] = 20.0 if clip[0] == 2 else -20.0
    return logits


@pytest.mark.parametrize("width", [1, 3])
def test_real_search_falls_back_row_by_row(width: int) -> None:
    options = TranscribeOptions(beam_size=width, temperature=(0.0, 0.4))
    batch = ScriptedBatch(script, [np.array([row], np.float32) for row in range(3)], 448, [])
    prompt = Prompt(np.array([[START, EN, TRANSCRIBE, NO_STAMPS]] * 3, np.int64), 0)
    found = Decoder(TOKENS, PLAIN, options, text_of).decode(batch, prompt, [RowLimits(30, 9.0, 0)] * 3)
    assert found[0].decoded.tokens == (1, 2, 3, 0) and found[0].decoded.temperature == 0.0
    assert found[1].decoded.temperature == 0.4 or found[1].failed
    assert found[2].silent
    fresh = ScriptedBatch(script, [np.array([1], np.float32)], 448, [])
    one = Prompt(prompt.ids[:1], 0)
    (alone,) = Decoder(TOKENS, PLAIN, options, text_of).decode(fresh, one, [RowLimits(30, 9.0, 0)])
    assert alone == found[1], "the other rows changed nothing"
    assert sample(batch, prompt, PLAIN, TOKENS, [30] * 3)[0].tokens == (1, 2, 3, 0), "the audio is still there"
    assert script(np.zeros(1, np.float32), [START]).size == VOCABULARY
