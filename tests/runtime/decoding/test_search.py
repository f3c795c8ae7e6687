from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from scripted_engine import (
    EN,
    END,
    NO_SPEECH,
    NO_STAMPS,
    ORDINARY,
    PREVIOUS,
    START,
    TOKENS,
    TRANSCRIBE,
    VOCABULARY,
    Float,
    Script,
    ScriptedBatch,
    after_prompt,
    saying,
)

from sottovoce.decoding.grammar import Grammar
from sottovoce.decoding.search import Prompt, beam_search, sample

PLAIN = Grammar(TOKENS, timestamps=False, suppress=())
FED = [START, EN, TRANSCRIBE, NO_STAMPS]


def batch_of(script: Script, *names: float, capacity: int = 448) -> ScriptedBatch:
    """A row for each name; the name is the clip's only sample."""
    return ScriptedBatch(script, [np.array([name], np.float32) for name in names], capacity, [])


def prompt(rows: int, before: Sequence[int] = ()) -> Prompt:
    return Prompt(np.array([[*before, *FED]] * rows, np.int64), len(before))


def noisy(clip: Float, fed: Sequence[int]) -> Float:
    """Logits that depend on the clip and on every token since the prompt, reproducibly."""
    done = after_prompt(fed) or ()
    logits = np.random.default_rng([int(clip[0]), len(done), *done]).normal(0, 2, VOCABULARY).astype(np.float32)
    logits[END] += len(done) / 4 - 2
    return logits


def test_greedy_takes_the_likeliest_token_until_the_end() -> None:
    batch = batch_of(lambda clip, fed: saying([3, 1, 2], fed), 0)
    (found,) = sample(batch, prompt(1), PLAIN, TOKENS, [50])
    assert (found.tokens, found.stopped, found.temperature) == ((3, 1, 2), "end", 0.0)
    # Ten words and the end may be chosen, but for a blank and the end at first; one has 12, the others 0.
    choices = [ORDINARY - 1, *[ORDINARY + 1] * 3]
    assert found.logprobs == pytest.approx([-np.log1p((count - 1) * np.exp(-12)) for count in choices], rel=1e-2)
    assert found.avg_logprob == pytest.approx(sum(found.logprobs) / 4)


def test_the_probability_of_no_speech_is_read_where_the_transcript_starts() -> None:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = saying([1], fed)
        logits[NO_SPEECH] = np.log(VOCABULARY - 1) if fed[-1] == START else 20.0
        return logits

    for before in ([], [PREVIOUS, 4, 5, 6]):
        batch = batch_of(script, 0)
        assert sample(batch, prompt(1, before), PLAIN, TOKENS, [9])[0].no_speech_prob == pytest.approx(0.5)
        assert beam_search(batch_of(script, 0, 0), prompt(2, before), PLAIN, TOKENS, 9).no_speech_prob == pytest.approx(
            0.5
        )


def test_a_row_stops_at_its_own_limit() -> None:
    batch = batch_of(lambda clip, fed: saying(list(range(8)), fed), 0, 1)
    short, long = sample(batch, prompt(2), PLAIN, TOKENS, [2, 5])
    assert (short.tokens, short.stopped) == ((0, 1), "limit") and len(short.logprobs) == 2
    assert (long.tokens, long.stopped) == ((0, 1, 2, 3, 4), "limit")


def test_a_limit_fits_a_batch_with_room_for_prompt_and_limit_and_no_more() -> None:
    batch = batch_of(lambda clip, fed: saying([1, 2] * 9, fed), 0, capacity=len(FED) + 6)
    assert len(sample(batch, prompt(1), PLAIN, TOKENS, [6])[0].tokens) == 6


def test_a_loop_is_cut_after_its_first_time_round_while_other_rows_go_on() -> None:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        return saying([5, 6] * 60 if clip[0] else [*range(8)] * 2, fed)

    looping, sound = sample(batch_of(script, 1, 0), prompt(2), PLAIN, TOKENS, [100, 100])
    assert (looping.tokens, looping.stopped) == ((5, 6), "loop") and len(looping.logprobs) == 2
    assert (sound.tokens, sound.stopped) == ((*range(8),) * 2, "end")


def test_rows_that_ended_are_left_behind() -> None:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        return saying([*range(8)][: int(clip[0])], fed)

    batch = batch_of(script, 1, 1, 2, 7)
    found = sample(batch, prompt(4), PLAIN, TOKENS, [50] * 4)
    assert [len(row.tokens) for row in found] == [1, 1, 2, 7]
    assert batch.log == [4, 4, 2, 1, 1, 1, 1, 1], "half of the rows ended, and half of the rest"


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_row_says_the_same_in_a_batch_as_alone(temperature: float) -> None:
    names = [3.0, 1.0, 4.0, 15.0, 9.0, 2.0, 6.0]
    seeds = [int(name) for name in names]
    together = sample(batch_of(noisy, *names), prompt(7), PLAIN, TOKENS, [25] * 7, temperature, seeds)
    assert len({len(row.tokens) for row in together}) > 3, "rows end at different times"
    for name, row in zip(names, together, strict=True):
        assert sample(batch_of(noisy, name), prompt(1), PLAIN, TOKENS, [25], temperature, [int(name)]) == [row]


def test_a_batch_can_be_decoded_again() -> None:
    batch = batch_of(noisy, 1.0, 2.0)
    first = sample(batch, prompt(2), PLAIN, TOKENS, [20, 20])
    assert sample(batch, prompt(2), PLAIN, TOKENS, [20, 20]) == first


def test_sampling_repeats_itself_with_one_seed_and_not_with_another() -> None:
    def at(seed: int) -> tuple[int, ...]:
        return sample(batch_of(noisy, 1.0), prompt(1), PLAIN, TOKENS, [30], 1.0, [seed])[0].tokens

    assert at(1) == at(1)
    assert len({at(seed) for seed in range(8)}) > 4


def test_sampling_follows_the_probabilities_at_its_temperature() -> None:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = np.full(VOCABULARY, -np.inf, np.float32)
        logits[NO_SPEECH] = 0
        if after_prompt(fed):
            logits[END] = 0
        elif after_prompt(fed) is not None:
            logits[[1, 2]] = 0, np.log(4)
        return logits

    rows = 600
    found = sample(batch_of(script, *[0.0] * rows), prompt(rows), PLAIN, TOKENS, [5] * rows, 2.0, range(rows))
    # At temperature 2 odds of 4 to 1 become 2 to 1; a log probability stays that of the model.
    assert sum(row.tokens == (2,) for row in found) / rows == pytest.approx(2 / 3, abs=0.06)
    assert all(row.logprobs[0] == pytest.approx(np.log(0.8)) for row in found if row.tokens == (2,))


def garden_path(clip: Float, fed: Sequence[int]) -> Float:
    """0 looks better than 1 at first; after it nothing is likely, after 1 all is certain."""
    done = after_prompt(fed)
    probabilities = np.full(VOCABULARY, 1e-9)
    if not done:
        probabilities[[0, 1]] = 0.55, 0.45
    elif done[0] == 0 and len(done) == 1:
        probabilities[2:8] = 1 / 6
    elif len(done) == 1:
        probabilities[3] = 1.0
    else:
        probabilities[END] = 1.0
    return np.log(probabilities).astype(np.float32)


def test_beams_find_the_likelier_path_where_greed_takes_the_worse() -> None:
    (greedy,) = sample(batch_of(garden_path, 0), prompt(1), PLAIN, TOKENS, [9])
    beams = beam_search(batch_of(garden_path, 0, 0), prompt(2), PLAIN, TOKENS, 9)
    assert (greedy.tokens[0], beams.tokens, beams.stopped) == (0, (1, 3), "end")
    assert beams.avg_logprob > greedy.avg_logprob
    assert beams.logprobs == pytest.approx([np.log(0.45), 0, 0], abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_one_beam_is_greed(seed: int) -> None:
    (greedy,) = sample(batch_of(noisy, seed), prompt(1), PLAIN, TOKENS, [12])
    beam = beam_search(batch_of(noisy, seed), prompt(1), PLAIN, TOKENS, 12)
    assert beam.tokens == greedy.tokens and beam.logprobs == pytest.approx(greedy.logprobs)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_with_a_beam_for_every_path_the_best_of_all_paths_is_found(seed: int, penalty: float) -> None:
    """Three words, at most three of them: 40 paths, each scored here one by one."""
    words, longest = [0, 1, 2], 3

    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = np.full(VOCABULARY, -np.inf, np.float32)
        logits[NO_SPEECH] = 0
        done = after_prompt(fed)
        if done is not None:
            random = np.random.default_rng([seed, *done, len(done)])
            logits[[*words, END]] = random.normal(0, 1.5, 4) if len(done) < longest else (-50, -50, -50, 0)
        return logits

    def score(path: tuple[int, ...]) -> float:
        total = 0.0
        for i, token in enumerate([*path, END]):
            row = script(np.zeros(1, np.float32), [*FED, *path[:i]])[None].copy()
            PLAIN.apply(row, [path[:i]])
            total += float(row[0, token] - np.log(np.exp(row[0].astype(np.float64)).sum()))
        return total / (len(path) + 1) ** penalty

    paths = [path for length in range(1, longest + 1) for path in product(words, repeat=length)]
    width = len(paths)
    found = beam_search(batch_of(script, *[0.0] * width), prompt(width), PLAIN, TOKENS, longest + 1, penalty)
    assert found.tokens == max(paths, key=score)
    assert sum(found.logprobs) / len(found.logprobs) ** penalty == pytest.approx(score(found.tokens), abs=1e-4)


def test_beams_stop_at_the_limit() -> None:
    def endless(clip: Float, fed: Sequence[int]) -> Float:
        logits = noisy(clip, fed)
        logits[END] = -np.inf
        return logits

    found = beam_search(batch_of(endless, 1, 1, 1, capacity=len(FED) + 7), prompt(3), PLAIN, TOKENS, 7)
    assert (len(found.tokens), len(found.logprobs), found.stopped) == (7, 7, "limit")


def test_a_loop_among_beams_is_cut() -> None:
    batch = batch_of(lambda clip, fed: saying([5, 6] * 12, fed, 30.0), 0, 0)
    found = beam_search(batch, prompt(2), PLAIN, TOKENS, 60)
    assert (found.tokens, found.stopped) == ((5, 6), "loop") and len(found.logprobs) == 2
