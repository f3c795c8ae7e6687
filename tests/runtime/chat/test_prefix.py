from pathlib import Path

import numpy as np
import pytest
from tests.runtime.chat.scripted_chat import ScriptedChat

from sottovoce.chat.prefix import PrefixCache
from sottovoce.errors import EngineError, InputError


def test_only_what_is_new_is_evaluated() -> None:
    engine = ScriptedChat()
    prefix = PrefixCache(engine)
    assert prefix.reuse([1, 2, 3]) == 0
    prefix.evaluate([1, 2, 3])
    assert prefix.reuse([1, 2, 9, 9]) == 2
    prefix.evaluate([9, 9])
    assert engine.tokens == [1, 2, 9, 9] == list(prefix.tokens)
    assert engine.runs == [3, 2]


@pytest.mark.parametrize("again", [[1, 2, 3], [1, 2], [1]])
def test_the_last_token_of_a_prompt_is_always_left_for_its_logits(again: list[int]) -> None:
    engine = ScriptedChat()
    prefix = PrefixCache(engine)
    prefix.evaluate([1, 2, 3])
    cached = prefix.reuse(again)
    assert cached == len(again) - 1 == engine.length
    fresh = ScriptedChat().evaluate(again)
    assert np.array_equal(prefix.evaluate(again[cached:]), fresh)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), EngineError("broken"), InputError("full")])
@pytest.mark.parametrize("kept", [0, 2])
def test_after_an_error_or_interrupt_the_engines_length_is_the_truth(error: BaseException, kept: int) -> None:
    engine = ScriptedChat()
    prefix = PrefixCache(engine)
    prefix.evaluate([1, 2])
    engine.breaks = (kept, error)
    with pytest.raises(type(error)):
        prefix.evaluate([3, 4, 5])
    assert list(prefix.tokens) == engine.tokens == [1, 2, 3, 4][: 2 + kept]
    assert prefix.reuse([1, 2, 3, 4, 5]) == 2 + kept
    assert prefix.reuse([1, 9, 9]) == 1 == engine.length


def test_an_adapter_empties_the_cache() -> None:
    engine = ScriptedChat()
    prefix = PrefixCache(engine)
    for change in (lambda: engine.attach(Path("a.gguf"), 1.0), engine.detach):
        prefix.evaluate([1, 2, 3])
        change()
        assert prefix.tokens == ()
        assert prefix.reuse([1, 2, 3]) == 0


def test_what_others_put_into_the_engine_is_never_taken_for_ours() -> None:
    engine = ScriptedChat()
    prefix = PrefixCache(engine)
    prefix.evaluate([1, 2])
    engine.evaluate([7])
    assert prefix.reuse([1, 2, 3]) == 0
    assert engine.tokens == []


def test_an_engine_that_forgets_more_than_it_should_is_believed() -> None:
    class Windowed(ScriptedChat):
        def truncate(self, length: int) -> None:
            if length < self.length:
                self.tokens = []

    prefix = PrefixCache(Windowed())
    prefix.evaluate([1, 2, 3])
    assert prefix.reuse([1, 2, 9]) == 0
    assert prefix.tokens == ()


def test_a_restored_state_is_used_by_the_next_prompt() -> None:
    engine, other = ScriptedChat(), ScriptedChat()
    PrefixCache(engine).evaluate([1, 2, 3])
    prefix = PrefixCache(other)
    prefix.evaluate([8, 8])
    prefix.restore([1, 2, 3], engine.save_state())
    assert prefix.reuse([1, 2, 3, 4]) == 3
    assert np.array_equal(prefix.evaluate([4]), ScriptedChat().evaluate([1, 2, 3, 4]))


@pytest.mark.parametrize("state", [b"nonsense", b"scripted[1]"])
def test_a_state_that_is_refused_leaves_an_empty_cache_that_works(state: bytes) -> None:
    engine = ScriptedChat()
    prefix = PrefixCache(engine)
    prefix.evaluate([1, 2, 3])
    with pytest.raises(InputError):
        prefix.restore([1, 2, 3], state)
    assert prefix.tokens == () and engine.length == 0
    assert prefix.reuse([1, 2, 3]) == 0
