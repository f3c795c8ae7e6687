from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.chat.overflow import fit, reserve_for
from sottovoce.chat.types import Message
from sottovoce.errors import InputError


def says(role: str, size: int) -> Message:
    return {"role": role, "content": "x" * size}


def count(messages: Sequence[Message]) -> int:
    """A token a character and one a message."""
    return 1 + sum(1 + len(one["content"]) for one in messages)


def roles(messages: Sequence[Message]) -> str:
    return "".join(one["role"][0] for one in messages)


TALK = [says(role, 9) for role in ("system", "user", "assistant", "user", "assistant", "tool", "assistant", "user")]


def test_what_fits_stays_as_it_is() -> None:
    fitted = fit(TALK, count, 200, 50, "error")
    assert fitted.messages == tuple(TALK) and fitted.dropped == 0 and fitted.tokens == count(TALK)


def test_without_leave_to_drop_the_error_names_both_numbers_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"81 tokens.*context is 81.*overflow=\"drop_oldest\""):
        fit(TALK, count, 81, 10, "error")
    assert fit(TALK, count, 82, 10, "error").dropped == 0


def test_whole_turns_go_the_oldest_first_and_the_system_message_stays() -> None:
    assert roles(fit(TALK, count, 81, 10, "drop_oldest").messages) == "suatau"
    fitted = fit(TALK, count, 60, 10, "drop_oldest")
    assert roles(fitted.messages) == "su" and fitted.dropped == 6
    assert fitted.tokens == count(fitted.messages)


def test_the_last_turn_stays_with_its_calls_and_results() -> None:
    talk = [says("user", 50), says("assistant", 50), says("user", 9), says("assistant", 9), says("tool", 9)]
    assert roles(fit(talk, count, 100, 20, "drop_oldest").messages) == "uat"


def test_a_greeting_before_the_first_question_is_a_turn() -> None:
    talk = [says("system", 1), says("assistant", 50), says("user", 9), says("assistant", 9), says("user", 9)]
    assert roles(fit(talk, count, 70, 20, "drop_oldest").messages) == "suau"


def test_a_last_turn_that_is_too_long_alone_is_an_error_also_then() -> None:
    talk = [says("system", 9), says("user", 9), says("user", 80)]
    with pytest.raises(InputError, match="92 tokens, the context is 92"):
        fit(talk, count, 92, 10, "drop_oldest")
    assert roles(fit(talk, count, 93, 10, "drop_oldest").messages) == "su"


@pytest.mark.parametrize("talk", [[says("user", 500)], [says("system", 500)], [says("assistant", 500)]])
def test_one_message_that_is_too_long_is_an_error(talk: Any) -> None:
    with pytest.raises(InputError, match="502 tokens"):
        fit(talk, count, 400, 10, "drop_oldest")


def test_the_cut_stays_for_some_turns_so_that_the_cache_stays_of_use() -> None:
    talk, starts = [says("system", 9)], []
    for turn in range(60):
        talk = [*talk, {"role": "user", "content": f"{turn:010}"}]
        starts.append(fit(talk, count, 200, 40, "drop_oldest").messages[1]["content"])
        talk = [*talk, says("assistant", 9)]
    moves = sum(1 for one, other in pairwise(starts) if one != other)
    assert 60 - moves > 20 and moves <= 60 * 21 / (160 // 4) + 1


def test_counting_is_not_done_once_a_turn() -> None:
    asked = 0

    def counted(messages: Sequence[Message]) -> int:
        nonlocal asked
        asked += 1
        return count(messages)

    talk = [says(role, 9) for _ in range(500) for role in ("user", "assistant")]
    fit([*talk, says("user", 9)], counted, 2000, 256, "drop_oldest")
    assert asked <= 13


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.integers(0, 30)), min_size=1),
    st.integers(20, 300),
    st.integers(1, 100),
)
def test_whatever_is_kept_fits_ends_alike_and_misses_no_system_message(
    talk: list[tuple[str, int]], context: int, reserve: int
) -> None:
    messages = [says(role, size) for role, size in talk]
    try:
        fitted = fit(messages, count, context, reserve, "drop_oldest")
    except InputError:
        last = max((at for at, one in enumerate(messages) if one["role"] == "user"), default=0)
        assert count([one for at, one in enumerate(messages) if at >= last or one["role"] == "system"]) >= context
        return
    assert fitted.tokens == count(fitted.messages) < context
    assert roles(fitted.messages).count("s") == roles(messages).count("s")
    assert fitted.messages[-1] is messages[-1]
    assert fitted.dropped == len(messages) - len(fitted.messages)


def test_room_for_the_answer_is_what_was_asked_for_within_half_of_the_context() -> None:
    assert [reserve_for(100, 2048), reserve_for(None, 2048), reserve_for(5000, 2048), reserve_for(None, 128)] == [
        100,
        256,
        1024,
        64,
    ]
