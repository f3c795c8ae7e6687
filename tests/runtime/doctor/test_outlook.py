"""What a machine could run: only what fits, slower on a slower one, and near what is published of the models."""

import pytest

from sottovoce.doctor.outlook import WHISPER, outlook
from sottovoce.doctor.speed import Speed, measure_speed

FAST, SLOW = Speed(100.0, 20.0), Speed(10.0, 4.0)
PARAMETERS = {"tiny": 39e6, "base": 74e6, "small": 244e6, "medium": 769e6, "large-v3-turbo": 809e6}  # published


def test_only_what_the_memory_is_enough_for_is_expected() -> None:
    everything, some = list(outlook(FAST, None)), list(outlook(FAST, 512_000_000))
    assert {one.model for one in some} < {one.model for one in everything}
    assert all(one.needed_mb <= 512 for one in some) and any(one.needed_mb > 512 for one in everything)
    assert list(outlook(FAST, 1_000_000)) == []


def test_a_slower_machine_takes_longer_for_everything() -> None:
    for fast, slow in zip(outlook(FAST, None), outlook(SLOW, None), strict=True):
        if fast.rtf is not None and slow.rtf is not None:
            assert slow.rtf > fast.rtf > 0
        else:
            assert (slow.tokens_per_s or 0) < (fast.tokens_per_s or 0)


def test_a_larger_model_is_slower_and_needs_more() -> None:
    speech = [one for one in outlook(FAST, None) if one.rtf is not None]
    assert [one.needed_mb for one in speech[:4]] == sorted(one.needed_mb for one in speech[:4])
    assert [one.rtf or 0 for one in speech[:4]] == sorted(one.rtf or 0 for one in speech[:4])


@pytest.mark.parametrize("size", WHISPER, ids=lambda size: size.name)
def test_a_size_of_whisper_has_the_weights_that_are_published(size: object) -> None:
    (parameters,) = (count for name, count in PARAMETERS.items() if size.name.endswith(name))  # type: ignore[attr-defined]
    assert size.weights == pytest.approx(parameters, rel=0.07)  # type: ignore[attr-defined]


def test_a_machine_has_a_speed() -> None:
    speed = measure_speed(seconds=0.02)
    assert speed is not None and speed.gflops > 0 and speed.gb_per_s > 0
