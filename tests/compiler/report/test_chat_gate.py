import json
import math
from dataclasses import replace

import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.report.chat_card import Sameness
from sottovoce_compiler.report.chat_gate import ChatGate, chat_gate_from
from sottovoce_compiler.report.gate import GateError
from sottovoce_targets import CHAT_GATE_LIMITS

from .chat_card_case import CARD, GATE, SCORES


def reasons(**scores: float) -> tuple[str, ...]:
    return GATE.check(replace(CARD, scores=replace(SCORES, **scores))).reasons


def test_an_artifact_within_its_limits_passes_whatever_it_says_of_tools() -> None:
    verdict = GATE.check(CARD)
    assert verdict.reasons == ()
    verdict.require()


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"kl": 0.11}, "mean KL divergence is 0.11, 0.1 allowed"),
        ({"perplexity": 24.1}, "perplexity is 24.1, 24 allowed"),
        ({"top1": 0.89}, "share of other likeliest tokens is 0.11, 0.1 allowed"),
    ],
)
def test_each_limit_is_a_reason_of_its_own(scores: dict[str, float], said: str) -> None:
    assert reasons(**scores) == (said,)


def test_what_is_exactly_allowed_passes() -> None:
    assert reasons(kl=0.1, perplexity=24.0, top1=0.9) == ()


@pytest.mark.parametrize("name", ["kl", "perplexity", "source_perplexity", "top1"])
def test_a_number_that_is_none_does_not_pass(name: str) -> None:
    assert reasons(**{name: math.nan})
    assert name == "top1" or reasons(**{name: math.inf})


def test_nothing_measured_does_not_pass() -> None:
    assert GATE.check(replace(CARD, scores=None)).reasons == ("nothing was measured: the text is too short",)


def test_a_tokenizer_or_template_that_differs_does_not_pass_whatever_the_limits() -> None:
    loose = ChatGate(1e9, 1e9, 0.0)
    card = replace(CARD, tokenizer=Sameness(12, 11, "'½'"), template=Sameness(14, 12, "a tool"))
    assert loose.check(card).reasons == (
        "the tokenizer differs from the source's on 1 of 12 texts",
        "first: '½'",
        "the chat template differs from the source's on 2 of 14 texts",
        "first: a tool",
    )
    assert loose.check(replace(CARD, template=None)).reasons == ()


def test_a_gate_that_does_not_hold_raises_with_all_its_reasons_and_tables() -> None:
    verdict = GATE.check(replace(CARD, scores=replace(SCORES, kl=0.5, top1=0.1)))
    with pytest.raises(GateError, match=r"does not hold: mean KL divergence is 0\.5, .*; share of other") as caught:
        verdict.require()
    assert caught.value.result is verdict and caught.value.exit_code == 1


def test_the_json_has_limits_checks_and_reasons() -> None:
    values = GATE.check(CARD).to_json()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["passed"] is True and values["reasons"] == []
    assert values["limits"] == {"max_kl": 0.1, "max_perplexity_increase": 0.2, "min_top1": 0.9}
    assert [check["name"] for check in values["checks"]] == [
        "mean KL divergence",
        "perplexity",
        "share of other likeliest tokens",
    ]
    assert values["checks"][1] == {
        "name": "perplexity",
        "reference": 20.0,
        "reached": 21.0,
        "limit": 24.0,
        "passed": True,
    }
    broken = GATE.check(replace(CARD, scores=replace(SCORES, kl=math.nan))).to_json()
    assert broken["passed"] is False and json.dumps(broken, allow_nan=False)


def test_limits_come_by_name_and_the_others_have_defaults() -> None:
    assert chat_gate_from({"max_kl": 0.5}) == ChatGate(max_kl=0.5)
    assert set(CHAT_GATE_LIMITS) == set(ChatGate.__dataclass_fields__)


@pytest.mark.parametrize("name", ["max_wer_increase", "max_KL"])
def test_a_limit_of_speech_is_refused_with_those_of_language_models(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is not for language models; those are max_kl, max_perplexity"):
        chat_gate_from({name: 0.1})


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.1", True, None])
def test_a_limit_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="gate limit max_kl is"):
        chat_gate_from({"max_kl": value})  # type: ignore[dict-item]
