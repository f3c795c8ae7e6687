"""Pieces decoded by a scripted engine. A clip's samples are their own positions in the recording, 1-based."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import (
    DE,
    EN,
    NO_SPEECH,
    NO_STAMPS,
    PREVIOUS,
    START,
    TOKENS,
    TRANSLATE,
    VOCABULARY,
    Float,
    ScriptedEngine,
    at,
    saying,
)

from sottovoce.pieces import _CROSS_BYTES, Heard, Piece, PieceDecoder, average, groups
from sottovoce.tokens import TokenTable
from sottovoce.types import Segment, TranscribeOptions

SECOND = 16_000
TABLE = TokenTable([f" {letter}".encode() for letter in "abcdefgh"] + [b" ", b"#"], 10)
Plan = Callable[[float, Sequence[int]], Sequence[int]]  # where a clip starts, seconds, and all that was fed -> tokens


def piece(start: float, seconds: float) -> Piece:
    first = round(start * SECOND)
    return Piece(np.arange(first + 1, first + 1 + round(seconds * SECOND), dtype=np.float32), first)


def start_of(clip: Float) -> float:
    """Seconds; whatever silence was put before the clip."""
    return (float(clip[np.flatnonzero(clip)[0]]) - 1) / SECOND


def lead_of(clip: Float) -> float:
    """Seconds of silence before the clip."""
    return float(np.flatnonzero(clip)[0]) / SECOND


def engine_of(plan: Plan, sure: float = 14.0) -> ScriptedEngine:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = saying(plan(start_of(clip), fed), fed, sure)
        logits[DE] = 2.0 if start_of(clip) >= 100 else -2.0
        return logits

    return ScriptedEngine(script)


def decoder(engine: ScriptedEngine, **options: Any) -> PieceDecoder:
    return PieceDecoder(engine, TOKENS, TABLE, TranscribeOptions(**{"language": "en", **options}))


def decode(plan: Plan, *pieces: Piece, **options: Any) -> tuple[list[list[Segment]], ScriptedEngine]:
    engine = engine_of(plan)
    chosen = decoder(engine, **options)
    return chosen.decode(chosen.begin(pieces), ["en"] * len(pieces)), engine


def lead() -> float:
    engine = engine_of(lambda start, fed: [at(0), 1, at(1)])
    decoder(engine).begin([piece(0, 2)])
    return lead_of(engine.started[0][0])


def test_segments_have_the_times_of_the_recording() -> None:
    plan = [at(0.5), 0, 1, at(2.0), at(2.4), 2, at(3.6)]
    ((first, second),), _ = decode(lambda start, fed: plan, piece(60, 4.0))
    assert (first.text, first.start, first.end, first.tokens) == (" a b", 60.5, 62.0, (0, 1))
    assert (second.text, second.start, second.end) == (" c", 62.4, 63.6)


def test_a_piece_with_nothing_before_it_starts_with_silence_and_its_times_do_not_show_it() -> None:
    pad = lead()
    assert pad == pytest.approx(0.1)
    ((only,),), engine = decode(lambda start, fed: [at(pad + 0.5), 0, at(pad + 2.0)], piece(0, 3.0))
    assert (only.start, only.end) == (0.5, 2.0)
    assert engine.started[0][0].size == 3.1 * 16_000


def test_a_time_that_the_model_makes_up_stays_within_the_piece() -> None:
    ((only,),), _ = decode(lambda start, fed: [at(0.0), 1, at(25.0)], piece(60, 4.0))
    assert (only.start, only.end) == (60.0, 64.0)


def test_what_follows_the_last_closed_segment_is_heard_again() -> None:
    def plan(start: float, fed: Sequence[int]) -> Sequence[int]:
        return [at(0.0), 0, at(4.0)] if start < 10 else [at(0.4), 1, at(5.9)]

    (segments, other), engine = decode(plan, piece(8, 9.5), piece(20, 5.9))
    assert [segment.text for segment in segments] == [" a", " b"]
    assert segments[1].start > segments[0].end - 0.01 and segments[1].end <= 17.5
    assert [segment.text for segment in other] == [" b"]
    assert [len(clips) for clips in engine.started] == [2, 1], "only the row with a gap"


def test_a_short_gap_is_not_heard_again() -> None:
    _, engine = decode(lambda start, fed: [at(0.0), 0, at(lead() + 8.6)], piece(0, 10.0))
    assert len(engine.started) == 1


def test_a_transcript_that_did_not_close_its_last_segment_has_no_gap() -> None:
    _, engine = decode(lambda start, fed: [at(0.0), 0], piece(0, 10.0))
    assert len(engine.started) == 1


@pytest.mark.parametrize("end", [0.02, 0.1, 0.2, 0.22])
def test_a_piece_is_not_heard_again_from_where_it_began(end: float) -> None:
    (segments,), engine = decode(lambda start, fed: [at(0.0), 0, at(end)], piece(0, 10.0))
    starts = [start_of(clip) for (clip,) in engine.started]
    assert len(starts) == len(set(starts)) == len(segments)


def test_gaps_are_heard_again_a_bounded_number_of_times() -> None:
    _, engine = decode(lambda start, fed: [at(0.0), 0, at(lead() + 1.0)], piece(0, 28.0))
    assert len(engine.started) <= 5


def test_a_silent_piece_has_no_segments() -> None:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = saying([at(0.0), 1, 2, at(1.0)], fed, 0.5)
        logits[NO_SPEECH] = 30.0
        return logits

    chosen = decoder(ScriptedEngine(script), temperature=(0.0,))
    assert chosen.decode(chosen.begin([piece(0, 3)]), ["en"]) == [[]]


def test_blank_segments_are_left_out() -> None:
    ((only,),), _ = decode(lambda start, fed: [at(0.0), 1, at(1.0), at(1.0), 8, at(2.9)], piece(0, 3))
    assert only.text == " b"


def test_without_timestamps_a_piece_is_one_segment() -> None:
    ((only,),), engine = decode(lambda start, fed: [0, 1, 2], piece(5, 3), without_timestamps=True)
    assert (only.text, only.start, only.end) == (" a b c", 5.0, 8.0)
    assert len(engine.started) == 1


def fed_of(plan_options: dict[str, Any], *pieces: Piece, texts: dict[float, Sequence[int]]) -> list[list[int]]:
    """Every prompt that was fed, in order, by running pieces as one recording."""
    prompts: list[list[int]] = []

    def plan(start: float, fed: Sequence[int]) -> Sequence[int]:
        prompt = list(fed[: fed.index(START) + 3])
        if len(fed) == fed.index(START) + 3 and prompt not in prompts:
            prompts.append(prompt)
        return texts[start]

    engine = engine_of(plan)
    chosen = decoder(engine, **plan_options)
    parts = [[one] for one in pieces]
    list(chosen.in_order(parts, chosen.begin(parts[0]), "en"))
    return prompts


def test_an_initial_prompt_is_fed_before_every_piece() -> None:
    texts = {0.0: [at(0.0), 0, at(2.0)], 10.0: [at(0.0), 1, at(2.0)]}
    prompts = fed_of({"initial_prompt": "c d"}, piece(0, 2), piece(10, 2), texts=texts)
    assert prompts == [[PREVIOUS, *TABLE.encode(" c d"), *TOKENS.prompt("en", "transcribe", True)]]


def test_without_a_prompt_nothing_is_fed_before() -> None:
    texts = {0.0: [at(0.0), 0, at(2.0)]}
    assert fed_of({}, piece(0, 2), texts=texts) == [TOKENS.prompt("en", "transcribe", True)]
    assert fed_of({"task": "translate"}, piece(0, 2), texts=texts) == [[START, EN, TRANSLATE]]


def test_conditioned_on_previous_text_a_piece_is_fed_what_was_said_before() -> None:
    texts = {0.0: [at(0.0), 0, 1, at(2.0)], 10.0: [at(0.0), 2, at(2.0)], 20.0: [at(0.0), 3, at(2.0)]}
    pieces = [piece(0, 2), piece(10, 2), piece(20, 2)]
    start = TOKENS.prompt("en", "transcribe", True)
    prompts = fed_of({"condition_on_previous_text": True}, *pieces, texts=texts)
    assert prompts == [start, [PREVIOUS, 0, 1, *start], [PREVIOUS, 0, 1, 2, *start]]


def test_text_found_at_a_high_temperature_is_not_fed_on() -> None:
    texts = {0.0: [at(0.0), 0, 1, at(2.0)], 10.0: [at(0.0), 2, at(2.0)]}
    options = {"condition_on_previous_text": True, "temperature": (0.6,)}
    prompts = fed_of(options, piece(0, 2), piece(10, 2), texts=texts)
    assert prompts == [TOKENS.prompt("en", "transcribe", True)]


@pytest.mark.parametrize("options", [{}, {"without_timestamps": True}, {"word_timestamps": True}])
def test_the_longest_prompt_leaves_room_for_the_longest_transcript(options: dict[str, Any]) -> None:
    """A piece of 29 s that speaks to its limit, after hundreds of tokens of earlier text."""
    random = np.random.default_rng(0)
    endless = [int(token) for token in random.integers(0, 8, 400)]
    plan = endless if options.get("without_timestamps") else [at(0.0), *endless]
    engine = engine_of(lambda start, fed: plan)
    chosen = decoder(
        engine, initial_prompt="c d " * 200, temperature=(0.0,), compression_ratio_threshold=99.0, **options
    )
    segments = list(chosen.in_order([[piece(0, 29)]], chosen.begin([piece(0, 29)]), "en"))
    assert sum(len(segment.tokens) for segment in segments) >= 200
    assert max(engine.log) == 1


def test_the_language_is_heard_on_each_pieces_own_first_step() -> None:
    engine = engine_of(lambda start, fed: [at(0.0), 0, at(2.0)])
    chosen = decoder(engine, language=None)
    begun = chosen.begin([piece(0, 2), piece(100, 2)])
    assert [heard.language for heard in begun.heard] == ["en", "de"]
    assert begun.heard[0].probability == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    assert engine.log == [2] and len(engine.started) == 1, "one step of one token, on the audio encoded anyway"


def test_a_language_that_is_given_costs_no_step() -> None:
    engine = engine_of(lambda start, fed: [])
    begun = decoder(engine, language="de").begin([piece(0, 2)])
    assert begun.heard[0].probabilities == {"de": 1.0} and engine.log == []


def test_the_language_of_a_recording_is_the_mean_over_its_pieces() -> None:
    found = average([Heard({"en": 0.6, "de": 0.4}), Heard({"de": 0.9, "en": 0.1})])
    assert found.language == "de" and found.probabilities == pytest.approx({"de": 0.65, "en": 0.35})


def test_words_are_timed_join_to_their_segment_and_stay_in_the_piece() -> None:
    pad = lead()
    plan = [at(pad), 0, 1, at(pad + 2.0), at(pad + 2.0), 2, 9, 3, at(pad + 4.0)]
    (segments,), _ = decode(lambda start, fed: plan, piece(60, 4.0), word_timestamps=True, suppress_tokens=())
    assert [segment.text for segment in segments] == [" a b", " c# d"]
    for segment in segments:
        assert segment.words and "".join(word.word for word in segment.words) == segment.text
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
    words = [word for segment in segments for word in segment.words or ()]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 60 and times[-1] <= 64


def test_a_segment_that_begins_without_a_space_keeps_its_own_words() -> None:
    plan = [at(0.4), 0, at(2.0), at(2.0), 9, 1, at(4.0)]
    (segments,), _ = decode(lambda start, fed: plan, piece(0, 4.0), word_timestamps=True, suppress_tokens=())
    assert [segment.text for segment in segments] == [" a", "# b"]
    assert ["".join(word.word for word in segment.words or ()) for segment in segments] == [" a", "# b"]


def test_a_batch_has_the_words_of_each_piece_alone() -> None:
    plans = {0.0: [at(0.2), 0, 1, at(2.0)], 50.0: [at(0.2), 2, at(1.0), at(1.0), 3, 4, 5, at(5.0)]}

    def plan(start: float, fed: Sequence[int]) -> Sequence[int]:
        return plans[start]

    pieces = [piece(0, 2.0), piece(50, 5.0)]
    together, _ = decode(plan, *pieces, word_timestamps=True)
    for one, segments in zip(pieces, together, strict=True):
        ((alone), _) = decode(plan, one, word_timestamps=True)
        assert alone == [segments]


sizes = st.lists(st.floats(0.05, 29.0), max_size=20)


@given(sizes, st.integers(1, 10), st.integers(1, 8 << 20))
def test_groups_keep_the_order_and_hold_no_more_than_the_memory_set_aside(
    seconds: list[float], most: int, bytes_per_second: int
) -> None:
    pieces = [Piece(np.empty(round(length * SECOND), np.float32), i) for i, length in enumerate(seconds)]
    found = groups(pieces, bytes_per_second, most)
    assert [one.start for group in found for one in group] == list(range(len(pieces)))
    for group in found:
        assert 1 <= len(group) <= most
        held = max(one.seconds for one in group) * len(group) * bytes_per_second
        assert len(group) == 1 or held <= _CROSS_BYTES


def test_short_pieces_are_decoded_together_up_to_the_batch_size() -> None:
    pieces = [piece(0, 1.0)] * 10
    assert [len(group) for group in groups(pieces, 1 << 20, 4)] == [4, 4, 2]
    assert [len(group) for group in groups(pieces, _CROSS_BYTES // 2, 4)] == [2] * 5


def test_steering_is_fed_after_the_prompt_in_the_language_of_each_row() -> None:
    fed_rows: list[tuple[int, ...]] = []

    def plan(start: float, fed: Sequence[int]) -> Sequence[int]:
        fed_rows.append(tuple(fed))
        return [0]

    engine = engine_of(plan)
    chosen = decoder(engine, without_timestamps=True, language=None)
    pieces = [piece(0, 2), piece(100, 2)]
    chosen.decode(chosen.begin(pieces), ["en", "de"])
    assert {row for row in fed_rows if row[-1] == NO_STAMPS} == {
        tuple(TOKENS.prompt(code, "transcribe", timestamps=False)) for code in ("en", "de")
    }
    assert max(max(row) for row in fed_rows) < VOCABULARY
