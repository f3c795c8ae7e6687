import pytest

from sottovoce_compiler.finetune.trainer.schedule import SHAPES, factor


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (7, 0.3), (100, 0.05), (1000, 0.0)])
def test_every_step_has_a_rate_above_nothing_and_the_highest_is_reached(shape: str, steps: int, warmup: float) -> None:
    found = [factor(shape, step, steps, warmup) for step in range(steps)]
    assert all(0 < one <= 1 for one in found)
    if warmup < 1:
        assert max(found) == 1


def test_the_rate_rises_then_falls() -> None:
    found = [factor("cosine", step, 100, 0.1) for step in range(100)]
    assert found[:10] == sorted(found[:10]) and found[10] == 1 and found[10:] == sorted(found[10:], reverse=True)
    assert found[55] == pytest.approx(0.5) and found[99] < 0.001
    linear = [factor("linear", step, 100, 0.0) for step in range(100)]
    assert linear[50] == pytest.approx(0.5) and linear[99] == pytest.approx(0.01)
    assert {factor("constant", step, 10, 0.0) for step in range(10)} == {1.0}
