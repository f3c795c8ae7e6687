from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.runtime.chat.scripted_chat import (
    END,
    SIZE,
    TOOL,
    TOOL_END,
    ScriptedChat,
    ScriptedVocabulary,
    dreaming,
    saying,
    text_of,
)

from sottovoce.chat.generate import Step, generate
from sottovoce.chat.options import ChatOptions
from sottovoce.chat.prefix import PrefixCache
from sottovoce.chat.protocols import Constraint
from sottovoce.engines.chat import ChatEngine
from sottovoce.errors import EngineError, InputError

PROMPT = ScriptedVocabulary().encode("<bos>Hello world, say it again: ", special=True)


def run(
    engine: ScriptedChat,
    prompt: Sequence[int] = PROMPT,
    *,
    constraint: Constraint | None = None,
    show: frozenset[int] = frozenset(),
    **given: Any,
) -> list[Step]:
    options = ChatOptions(**{"seed": 1, **given})
    return list(generate(PrefixCache(engine), prompt, options, constraint, show))


def text(steps: Sequence[Step]) -> str:
    return "".join(step.text for step in steps)


def tokens(steps: Sequence[Step]) -> list[int]:
    return [step.token for step in steps]


@dataclass
class Only:
    """Allows one list of tokens after another: at each place a set of which one is chosen. Fulfils Constraint."""

    places: Sequence[set[int]]
    forces: bool = True
    open_end: bool = False  # the model ends it
    taken: list[int] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return not self.open_end and len(self.taken) == len(self.places)

    def forced(self) -> Sequence[int]:
        found = []
        for place in self.places[len(self.taken) :]:
            if not self.forces or len(place) > 1:
                break
            found += place
        return found

    def mask(self) -> NDArray[np.bool_]:
        mask = np.zeros(SIZE, np.bool_)
        mask[list(self.places[len(self.taken)] if len(self.taken) < len(self.places) else {END})] = True
        return mask

    def accept(self, token: int) -> None:
        if token not in self.places[len(self.taken)]:
            raise EngineError(f"{token} is not allowed")
        self.taken.append(token)


def test_the_scripted_chat_fulfils_the_protocol() -> None:
    engine: ChatEngine = ScriptedChat()
    assert engine.vocabulary.size == len(engine.evaluate([1])[0]) == SIZE


def test_an_answer_ends_with_the_models_end_which_is_neither_shown_nor_counted() -> None:
    steps = run(ScriptedChat(saying("Hello é日本👍🏽!", PROMPT)))
    assert text(steps) == "Hello é日本👍🏽!"
    assert steps[-1].token == END and steps[-1].finish_reason == "stop"
    usage = steps[-1].usage
    assert usage and (usage.prompt_tokens, usage.completion_tokens) == (len(PROMPT), len(steps) - 1)
    assert all(step.finish_reason is None and step.usage is None for step in steps[:-1])


def test_no_character_is_ever_broken() -> None:
    answer = "é👍日本語"
    script = saying("", PROMPT)

    def bytewise(so_far: Sequence[int]) -> NDArray[np.float32]:
        at, data = len(so_far) - len(PROMPT), answer.encode()
        logits = script(so_far)
        if at < len(data):
            logits[END], logits[data[at]] = 0, 40
        return logits

    assert [step.text for step in run(ScriptedChat(bytewise)) if step.text] == list(answer)


def test_a_stop_string_split_over_tokens_is_never_shown() -> None:
    steps = run(ScriptedChat(saying("one stop two", PROMPT)), stop=["e stop t"])
    assert text(steps) == "on"
    assert steps[-1].finish_reason == "stop" and text_of(tokens(steps)).endswith("stop t")


def test_max_tokens_ends_the_answer_at_once_and_shows_what_was_held() -> None:
    engine = ScriptedChat(saying("abcdef", PROMPT))
    steps = run(engine, max_tokens=3, stop="cx")
    assert text(steps) == "abc" and steps[-1].finish_reason == "length"
    assert engine.length == len(PROMPT) + 2  # the last token is nobody's past


def test_half_a_character_at_the_limit_is_replaced() -> None:
    steps = run(ScriptedChat(lambda _: np.where(np.arange(SIZE) == 0xC3, 40, 0).astype(np.float32)), max_tokens=1)
    assert text(steps) == "\ufffd"


def test_a_full_context_ends_the_answer() -> None:
    for speculate in (0, 8):
        engine = ScriptedChat(context=len(PROMPT) + 20)
        steps = run(engine, speculate=speculate, temperature=0)
        assert steps[-1].finish_reason == "length" and len(steps) == 21
        assert engine.length == engine.context
        last = run(engine, [*PROMPT, *tokens(steps)[:20]])
        assert len(last) == 1 and last[0].finish_reason == "length"


@pytest.mark.parametrize(("prompt", "reason"), [([], "empty"), ([1] * 33, "33 tokens, the context is 32")])
def test_a_prompt_of_no_use_is_refused_and_the_engine_untouched(prompt: list[int], reason: str) -> None:
    engine = ScriptedChat(context=32, tokens=[])
    prefix = PrefixCache(engine)
    prefix.evaluate([1, 2])
    with pytest.raises(InputError, match=reason):
        generate(prefix, prompt, ChatOptions())
    assert engine.tokens == [1, 2]


def test_control_tokens_are_hidden_but_for_those_that_are_to_be_seen() -> None:
    answer = "a<tool>b</tool>c"
    assert text(run(ScriptedChat(saying(answer, PROMPT)))) == "abc"
    assert text(run(ScriptedChat(saying(answer, PROMPT)), show=frozenset({TOOL, TOOL_END}))) == answer
    assert TOOL in tokens(run(ScriptedChat(saying(answer, PROMPT))))


def test_the_same_seed_says_the_same_and_another_seed_something_else() -> None:
    one, again, other = (tokens(run(ScriptedChat(), seed=seed, max_tokens=30)) for seed in (4, 4, 5))
    assert one == again != other


def test_the_last_token_of_a_prompt_is_evaluated_alone_whatever_is_cached() -> None:
    engine = ScriptedChat()
    prefix = PrefixCache(engine)
    for _ in range(2):
        list(generate(prefix, PROMPT, ChatOptions(max_tokens=1)))
    assert engine.runs == [len(PROMPT) - 1, 1, 1]


def test_a_second_turn_evaluates_only_what_is_new() -> None:
    engine = ScriptedChat(saying("Hello", PROMPT))
    prefix = PrefixCache(engine)
    first = list(generate(prefix, PROMPT, ChatOptions()))
    after = [*PROMPT, *tokens(first), 10, 11, 12]
    second = list(generate(prefix, after, ChatOptions(max_tokens=1)))
    assert second[-1].usage and second[-1].usage.cached_tokens == len(PROMPT) + len(first) - 1
    assert engine.runs[-2:] == [3, 1]


def test_an_answer_from_a_warm_cache_is_that_from_a_cold_one() -> None:
    engine = ScriptedChat()
    prefix = PrefixCache(engine)
    list(generate(prefix, PROMPT, ChatOptions(seed=9, max_tokens=20)))
    for cut in (len(PROMPT), 5, 1):
        warm = list(generate(prefix, [*PROMPT[:cut], 7], ChatOptions(seed=2, max_tokens=20)))
        assert tokens(warm) == tokens(run(ScriptedChat(), [*PROMPT[:cut], 7], seed=2, max_tokens=20))


REPEATING: dict[str, Any] = {"spread": 2.0, "memory": 2}


@pytest.mark.parametrize("speculate", [1, 3, 8])
@settings(max_examples=40, deadline=None)
@given(
    salt=st.integers(0, 1000),
    given=st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 0.3, 0.7, 1.2]),
            "repetition_penalty": st.sampled_from([1.0, 1.1]),
            "frequency_penalty": st.sampled_from([0.0, 0.2]),
            "max_tokens": st.integers(1, 60),
            "seed": st.integers(0, 99),
            "stop": st.sampled_from([(), ("the",), ("a", "and ")]),
        }
    ),
)
def test_speculation_changes_not_one_token_of_any_answer(speculate: int, salt: int, given: dict[str, Any]) -> None:
    """Logits of two tokens back fall into loops: drafts are made, many of them right and many wrong."""
    plain = run(ScriptedChat(dreaming(salt, **REPEATING)), **given)
    fast = run(ScriptedChat(dreaming(salt, **REPEATING)), **given, speculate=speculate)
    assert fast == plain


def test_speculation_saves_evaluations_where_the_answer_repeats_the_prompt() -> None:
    said = "".join(chr(33 + at) for at in range(80))
    prompt = ScriptedVocabulary().encode(said, special=False)
    plain, fast = ScriptedChat(saying(said, prompt)), ScriptedChat(saying(said, prompt))
    assert text(run(plain, prompt)) == text(run(fast, prompt, speculate=8)) == said
    assert len(plain.runs) == 82 and len(fast.runs) < 40


def test_after_a_wrong_draft_the_cache_holds_what_was_said_and_no_more() -> None:
    engine = ScriptedChat(dreaming(3, **REPEATING))
    prefix = PrefixCache(engine)
    said: list[int] = []
    for step in generate(prefix, PROMPT, ChatOptions(temperature=0, max_tokens=60, speculate=8)):
        said.append(step.token)
    assert max(engine.runs[1:]) > 1
    assert engine.tokens == [*PROMPT, *said][: engine.length] == list(prefix.tokens)


@pytest.mark.parametrize("speculate", [0, 8])
@pytest.mark.parametrize("after", range(0, 30, 3))
def test_closed_after_any_token_the_next_answer_is_as_if_nothing_had_been(after: int, speculate: int) -> None:
    engine = ScriptedChat(dreaming(3, **REPEATING))
    prefix = PrefixCache(engine)
    answer = generate(prefix, PROMPT, ChatOptions(temperature=0, speculate=speculate))
    for _ in range(after):
        next(answer)
    answer.close()
    assert list(prefix.tokens) == engine.tokens
    again = list(generate(prefix, PROMPT, ChatOptions(temperature=0, max_tokens=40, speculate=speculate)))
    assert tokens(again) == tokens(run(ScriptedChat(dreaming(3, **REPEATING)), temperature=0, max_tokens=40))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EngineError("out of memory")])
@pytest.mark.parametrize("at", [0, 3, 12])
def test_an_interrupt_or_error_within_the_engine_leaves_the_next_answer_right(error: BaseException, at: int) -> None:
    engine = ScriptedChat(dreaming(3, **REPEATING))
    prefix = PrefixCache(engine)
    answer = generate(prefix, PROMPT, ChatOptions(temperature=0))
    for _ in range(at):
        next(answer)
    engine.breaks = (0 if at else 7, error)
    with pytest.raises(type(error)):
        next(answer)
    assert list(prefix.tokens) == engine.tokens == [*PROMPT, *engine.tokens[len(PROMPT) :]][: engine.length]
    again = list(generate(prefix, PROMPT, ChatOptions(temperature=0, max_tokens=20)))
    assert tokens(again) == tokens(run(ScriptedChat(dreaming(3, **REPEATING)), temperature=0, max_tokens=20))
    assert again[-1].usage and again[-1].usage.cached_tokens == (len(PROMPT) - 1 if at else 7)


def places(answer: str) -> list[set[int]]:
    return [{token} for token in ScriptedVocabulary().encode(answer, special=False)]


def test_tokens_without_a_choice_are_evaluated_together_with_the_prompt_and_with_each_other() -> None:
    engine = ScriptedChat()
    one_of = {ord("0"), ord("1")}
    constraint = Only([*places('{"ab":'), one_of, *places(',"cd":'), one_of, *places("}")])
    steps = run(engine, constraint=constraint)
    assert text(steps)[:-2].replace("0", "1") == '{"ab":1,"cd":' and steps[-1].finish_reason == "stop"
    first, second = len(places('{"ab":')), len(places(',"cd":'))
    assert engine.runs == [len(PROMPT) - 1, 1 + first, 1 + second]
    assert steps[-1].usage and steps[-1].usage.completion_tokens == len(steps)


def test_a_draft_never_reaches_beyond_the_context() -> None:
    prompt = list(b"abc" * 10)
    for room in range(1, 12):
        engine = ScriptedChat(saying("abc" * 20, prompt), context=len(prompt) + room)
        steps = run(engine, prompt, speculate=8)
        assert text(steps) == ("abc" * 20)[: room + 1] and steps[-1].finish_reason == "length"
        assert max(engine.runs[1:]) > 1 or room < 3


def test_penalties_count_what_was_said() -> None:
    engine = ScriptedChat(lambda _: np.arange(SIZE, 0, -1, dtype=np.float32))
    assert tokens(run(engine, [200], temperature=0, frequency_penalty=1.5, max_tokens=5)) == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("speculate", [0, 6])
@pytest.mark.parametrize("forces", [False, True])
def test_a_constraint_is_never_broken_however_fast_it_goes(forces: bool, speculate: int) -> None:
    letters = {ord(one) for one in "abc"}
    order = [*places("[ab,"), letters, letters, *places(",ab,"), letters, letters, *places("]")] * 3
    plain, fast = ScriptedChat(), ScriptedChat()
    answers = [
        run(plain, constraint=Only(order, forces=forces), seed=3),
        run(fast, constraint=Only(order, forces=forces), seed=3, speculate=speculate),
    ]
    assert fast.tokens == [*PROMPT, *tokens(answers[1])][: fast.length]
    assert answers[0] == answers[1]
    assert len(answers[0]) == len(order) and all(
        step.token in place for step, place in zip(answers[0], order, strict=True)
    )


def test_a_draft_that_is_right_only_up_to_a_forced_token_is_kept_up_to_there() -> None:
    either = {ord("a"), ord("b")}
    order = [place for digit in "0123456789" for place in (either, {ord(digit)}, {ord("x")})]
    engine = ScriptedChat(lambda _: (np.arange(SIZE) == ord("a")).astype(np.float32) * 40)
    steps = run(engine, [*PROMPT, ord("x")], constraint=Only(order), speculate=8)
    assert text(steps) == "".join(f"a{digit}x" for digit in range(10))
    assert max(engine.runs[1:]) > 3
    assert engine.tokens == [*PROMPT, ord("x"), *tokens(steps)][: engine.length]


def test_where_the_constraint_lets_the_model_end_the_end_is_not_given_to_it() -> None:
    constraint = Only(places("ab"), open_end=True)
    steps = run(ScriptedChat(), constraint=constraint)
    assert tokens(steps) == [*b"ab", END] and constraint.taken == list(b"ab")


def test_a_constraint_that_allows_nothing_is_an_error_and_the_cache_stays_right() -> None:
    engine = ScriptedChat()
    with pytest.raises(InputError, match="allows no token"):
        run(engine, constraint=Only([{1, 2}, set()]))
    assert engine.tokens[: len(PROMPT)] == PROMPT


def test_the_limit_of_tokens_holds_within_what_is_forced() -> None:
    steps = run(ScriptedChat(), constraint=Only(places("abcdef")), max_tokens=3)
    assert text(steps) == "abc" and steps[-1].finish_reason == "length"
