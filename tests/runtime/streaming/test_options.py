import re
from dataclasses import fields
from typing import Any

import pytest

from sottovoce.errors import InputError
from sottovoce.streaming.options import StreamOptions, stream_options


def test_without_any_the_defaults_are_taken_and_are_themselves_allowed() -> None:
    assert stream_options({}) == StreamOptions()
    defaults = {one.name: getattr(StreamOptions(), one.name) for one in fields(StreamOptions)}
    assert stream_options(defaults) == StreamOptions()


def test_what_is_given_is_taken_and_the_rest_stays() -> None:
    chosen = stream_options({"step": 1, "language": "de", "partials": False})
    assert (chosen.step, chosen.language, chosen.partials) == (1, "de", False)
    assert chosen.window == StreamOptions().window


def test_an_option_that_does_not_exist_is_named_beside_those_that_do() -> None:
    with pytest.raises(InputError, match=r"'holdback'.*hold_back"):
        stream_options({"holdback": 1.0})


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "0.5", None, True, 1000])
@pytest.mark.parametrize("name", ["step", "hold_back", "end_of_speech", "window", "vad_threshold"])
def test_a_number_that_makes_no_sense_is_refused_with_its_name_and_range(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=re.escape(f"{name} = {value!r}")):
        stream_options({name: value})


@pytest.mark.parametrize("name", ["step", "hold_back", "end_of_speech", "window", "vad_threshold"])
def test_the_ends_of_every_range_are_allowed(name: str) -> None:
    with pytest.raises(InputError) as told:
        stream_options({name: -1})
    least, most = (float(edge) for edge in re.findall(r"; ([\d.]+) to ([\d.]+) is", str(told.value))[0])
    assert least < getattr(StreamOptions(), name) < most
    for edge in (least, most):
        assert getattr(stream_options({name: edge}), name) == edge


def test_a_window_is_never_longer_than_the_encoder_hears() -> None:
    """30 s, of which 2 may be silence that is kept and 0.1 is put before."""
    with pytest.raises(InputError, match="window"):
        stream_options({"window": 28.1})


@pytest.mark.parametrize(("name", "value"), [("partials", "no"), ("language", 7), ("initial_prompt", b"names")])
def test_an_option_of_the_wrong_kind_is_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        stream_options({name: value})
