import math
import re
from dataclasses import fields
from typing import Any

import pytest

from sottovoce.chat.options import DEFAULTABLE, ChatOptions
from sottovoce.errors import InputError

RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.1, 10),
    "top_k": (0, 1_000_000),
    "max_tokens": (1, 2**31 - 1),
    "speculate": (0, 16),
    "seed": (-(2**63), 2**63 - 1),
}


def test_what_is_given_counts_over_the_models_defaults_and_those_over_ours() -> None:
    options = ChatOptions.of({"temperature": 0.2, "top_k": 20}, top_k=5, seed=7)
    assert (options.temperature, options.top_k, options.seed) == (0.2, 5, 7)
    assert options.top_p == ChatOptions().top_p


def test_none_counts_as_not_given() -> None:
    assert ChatOptions.of({"max_tokens": 9}, max_tokens=None, temperature=None, stop=None).max_tokens == 9


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_every_range_are_allowed_and_nothing_beyond(name: str) -> None:
    least, most = RANGES[name]
    for value in (least, most):
        assert getattr(ChatOptions.of({}, **{name: value}), name) == value
    for value in (least - 1, most + 1):
        with pytest.raises(InputError, match=re.escape(f"{name} = {value!r}")):
            ChatOptions.of({}, **{name: value})


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", True, [1], {}, pytest.param(10**5000, id="5001 digits")])
def test_a_value_of_no_use_is_refused_with_its_name_on_one_short_line(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^{name} = .*is possible$") as told:
        ChatOptions.of({}, **{name: value})
    assert len(str(told.value)) < 200


@pytest.mark.parametrize("name", ["top_k", "max_tokens", "speculate", "seed"])
def test_a_count_is_a_whole_number(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} = 2.5; a whole number"):
        ChatOptions.of({}, **{name: 2.5})


def test_an_option_that_does_not_exist_is_named_with_the_closest() -> None:
    with pytest.raises(InputError, match=r"no option 'temprature'; did you mean 'temperature'\?"):
        ChatOptions.of({}, temprature=1)
    with pytest.raises(InputError, match=r"no option 'xyzzy'; there are .*top_p"):
        ChatOptions.of({}, xyzzy=1)


def test_a_model_recommends_how_to_sample_and_nothing_else() -> None:
    for name in {one.name for one in fields(ChatOptions)} - DEFAULTABLE:
        with pytest.raises(InputError, match=f"no default '{name}'"):
            ChatOptions.of({name: getattr(ChatOptions(), name)})
    assert "seed" not in DEFAULTABLE and "logit_bias" not in DEFAULTABLE


def test_one_stop_string_is_a_list_of_one() -> None:
    assert ChatOptions.of({}, stop="END").stop == ("END",)
    assert ChatOptions(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize("stop", ["", [""], ["a"] * 17, ["x" * 1001], [1], 5, {"a": 1}, [None]])
def test_stop_strings_are_few_and_not_empty(stop: Any) -> None:
    with pytest.raises(InputError, match="stop"):
        ChatOptions.of({}, stop=stop)


def test_a_bias_is_by_token_also_where_json_made_it_a_string() -> None:
    assert ChatOptions.of({}, logit_bias={"5": 1, 6: -100.0}).logit_bias == {5: 1.0, 6: -100.0}


@pytest.mark.parametrize("bias", [{"five": 1}, {-1: 1}, {1: 101}, {1: math.nan}, {1: "2"}, {True: 1}, [1], "1"])
def test_a_bias_of_no_use_is_refused(bias: Any) -> None:
    with pytest.raises(InputError, match="logit_bias"):
        ChatOptions.of({}, logit_bias=bias)


@pytest.mark.parametrize("policy", ["drop", None, 1])
def test_an_overflow_policy_that_does_not_exist_is_refused(policy: Any) -> None:
    with pytest.raises(InputError, match=r"overflow = .*'error' or 'drop_oldest'"):
        ChatOptions(overflow=policy)
