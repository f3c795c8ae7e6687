"""A run of the trainer: what is learned, what is kept, and that it goes on where it stopped, bit for bit."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sottovoce.errors import SottovoceError
from sottovoce_compiler.finetune.trainer import checkpoint as saved
from sottovoce_compiler.finetune.trainer.errors import CheckpointError, InterruptedTraining, TrainingError
from sottovoce_compiler.finetune.trainer.loop import train
from sottovoce_compiler.finetune.trainer.strategy import Plain

from .fake_task import Classifier, PointsTask, Record, job, settings, trained


def weights(made: object) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = made.strategy.parameters()  # type: ignore[attr-defined]
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_model_learns_and_the_outcome_says_from_what_to_what(tmp_path: Path) -> None:
    record = Record()
    _, outcome = trained(tmp_path, record, epochs=20)
    assert outcome.first is not None and outcome.best is not None
    assert record.losses[-1] < 0.7 * record.losses[0] and outcome.best.loss < 0.8 * outcome.first.loss
    assert outcome.best.measure > outcome.first.measure
    assert (outcome.steps, outcome.position.step, len(record.steps)) == (120, 120, 120)
    assert [one.step for one in record.evaluations] == list(range(0, 121, 6))


def test_the_same_seed_gives_the_same_losses_twice(tmp_path: Path) -> None:
    first, second = Record(), Record()
    one, _ = trained(tmp_path / "a", first)
    two, _ = trained(tmp_path / "b", second)
    assert first.losses == second.losses and same(weights(one), weights(two))


@pytest.mark.parametrize("after", [1, 4, 6, 7, 12, 23])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(after: int, tmp_path: Path) -> None:
    whole = Record()
    straight, expected = trained(tmp_path / "whole", whole)
    begun = Record(stop_after=after)
    with pytest.raises(InterruptedTraining, match=f"after step {after} of 24"):
        trained(tmp_path / "part", begun)
    rest = Record()
    made = job(tmp_path / "part", record=rest)
    for generator in (torch.manual_seed, random.seed, np.random.seed):
        generator(99)  # what another process would have
    found = train(made, saved.load(tmp_path / "part"))
    assert begun.losses + rest.losses == whole.losses
    assert same(weights(made), weights(straight))
    assert (found.best, found.best_step, found.position.tokens) == (
        expected.best,
        expected.best_step,
        expected.position.tokens,
    )
    assert [e.metrics for e in begun.evaluations + rest.evaluations] == [e.metrics for e in whole.evaluations]


def test_dropout_and_optimizer_are_part_of_what_is_gone_on_with(tmp_path: Path) -> None:
    """Guards the test above: without either the losses would differ."""
    whole = Record()
    trained(tmp_path / "whole", whole)
    for lost in ("random", "strategy"):
        with pytest.raises(InterruptedTraining):
            trained(tmp_path / lost, Record(stop_after=7))
        found = saved.load(tmp_path / lost)
        rest = Record()
        made = job(tmp_path / lost, record=rest)
        fresh = {"random": [], "strategy": found.strategy if lost == "random" else made.strategy.state()}
        torch.manual_seed(77)
        kept = {"random": found.random, **fresh} if lost == "random" else {**fresh, "random": found.random}
        train(made, saved.Checkpoint(found.run, found.position, found.parameters, found.best, **kept))  # type: ignore[arg-type]
        assert rest.losses != whole.losses[7:]


def test_a_step_is_the_mean_over_its_labels_however_it_is_accumulated(tmp_path: Path) -> None:
    def gradient(accumulation: int) -> dict[str, torch.Tensor]:
        task = PointsTask(accumulation=accumulation)
        made = job(tmp_path / str(accumulation), task)
        model = Classifier(dropout=0.0)
        strategy = Plain(model, 0.05, 0.0)
        (step,) = [one for _, one in zip(range(1), task.epoch(0, made.world), strict=False)]
        for batch in step.batches:
            strategy.backward(strategy.forward(batch).total / step.labelled, True)
        return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}

    task = PointsTask(accumulation=3)
    (first,) = [one for _, one in zip(range(1), task.epoch(0, job(tmp_path).world), strict=False)]
    rows = [row for batch in first.batches for row in batch.lines]
    x, y = torch.cat([b.x for b in first.batches]), torch.cat([b.y for b in first.batches])
    assert len({batch.labelled for batch in first.batches}) > 1, rows
    model = Classifier(dropout=0.0)
    mean = torch.nn.functional.cross_entropy(
        torch.tanh(x @ model.frozen.T) @ model.weight.T + model.bias, y, ignore_index=-100
    )
    mean.backward()  # type: ignore[no-untyped-call]
    for name, found in gradient(3).items():
        torch.testing.assert_close(found, dict(model.named_parameters())[name].grad, rtol=1e-5, atol=1e-7)


def test_the_best_step_is_what_the_model_holds_at_the_end(tmp_path: Path) -> None:
    record = Record()
    task = PointsTask(measured=[0.1, 0.5, 0.9, 0.2, 0.3])
    made = job(tmp_path, task, record)
    outcome = train(made)
    assert outcome.best is not None and (outcome.best.measure, outcome.best_step) == (0.9, 12)
    alone = job(tmp_path / "half", PointsTask(measured=[0.1, 0.5, 0.9]), Record(stop_after=12))
    with pytest.raises(InterruptedTraining):
        train(alone)
    assert same(weights(made), dict(saved.load(tmp_path / "half").parameters))


def test_patience_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    task = PointsTask(measured=[0.9, 0.5, 0.4, 0.5, 0.6])
    outcome = train(job(tmp_path, task, patience=2))
    assert outcome.stopped_early and outcome.position.step == 18 and outcome.best_step == 6
    assert outcome.first is not None and outcome.first.measure == 0.9, "before training is no candidate"


def test_a_lower_measure_is_better_where_the_task_says_so(tmp_path: Path) -> None:
    task = PointsTask(measured=[0.9, 0.5, 0.2, 0.4, 0.6], lower_is_better=True)
    assert train(job(tmp_path, task)).best_step == 12


def test_without_anything_to_measure_on_the_last_step_is_kept(tmp_path: Path) -> None:
    task = PointsTask()
    outcome = train(job(tmp_path, task, eval_fraction=0.0))
    assert (outcome.first, outcome.best, outcome.best_step, task.evaluations) == (None, None, 24, 0)


def test_steps_go_on_into_as_many_epochs_as_they_need(tmp_path: Path) -> None:
    task = PointsTask()
    outcome = train(job(tmp_path, task, steps=15))
    assert outcome.position.step == 15 and task.given == [0, 1, 2]
    assert outcome.position.evaluated == 15, "the last step is measured too"


def test_evaluations_come_as_often_as_asked(tmp_path: Path) -> None:
    record = Record()
    trained(tmp_path, record, eval_every=5)
    assert [one.step for one in record.evaluations] == [0, 5, 10, 15, 20, 24]


def test_a_loss_that_is_no_number_stops_and_names_the_data_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    record = Record()
    task = PointsTask()
    made = job(tmp_path, task, record, save_every=1)
    steps = 0

    def poisoned(report: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            task.x[:48] = float("nan")

    record.step = poisoned  # type: ignore[assignment]
    with pytest.raises(TrainingError, match=r"step 4: the loss is nan in points.jsonl, lines [\d, ]+; .*is kept"):
        train(made)
    kept = saved.load(tmp_path)
    assert kept.position.step == 3
    assert all(torch.isfinite(one).all() for one in kept.parameters.values())
    assert same(weights(made), dict(kept.parameters)), "the step was not taken"


def test_one_poisoned_line_is_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        train(job(tmp_path, PointsTask(poison=17)))
    named = str(caught.value).partition("lines ")[2].partition(";")[0].split(", ")
    assert "17" in named and len(named) == 4


def test_a_gradient_that_is_no_number_stops_before_the_parameters_change(tmp_path: Path) -> None:
    made = job(tmp_path)
    before = weights(made)
    weight = dict(made.strategy.model.named_parameters())["weight"]
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"step 1: the gradient is (inf|nan) in points\.jsonl"):
        train(made)
    assert same(weights(made), before)


def test_the_gradient_is_cut_to_the_length_asked_for(tmp_path: Path) -> None:
    one, two = Record(), Record()
    trained(tmp_path / "a", one, clip=1e-6, epochs=1)
    trained(tmp_path / "b", two, clip=0.0, epochs=1)
    assert one.steps[0].norm == two.steps[0].norm > 1e-3
    assert one.losses[0] == two.losses[0] and one.losses[1:] != two.losses[1:]


def test_a_checkpoint_of_another_run_is_refused_and_names_what_differs(tmp_path: Path) -> None:
    with pytest.raises(InterruptedTraining):
        trained(tmp_path, Record(stop_after=2))
    found = saved.load(tmp_path)
    other = saved.Checkpoint({"data": "others"}, found.position, found.parameters, found.best, found.strategy)
    with pytest.raises(CheckpointError, match="data = 'others', now it is 'points'"):
        train(job(tmp_path), other)
    thin = saved.Checkpoint(found.run, found.position, {"weight": torch.zeros(1)}, None, found.strategy)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        train(job(tmp_path), thin)


def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InterruptedTraining):
        trained(tmp_path, Record(stop_after=2))
    before = (tmp_path / saved.FILE).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SottovoceError, match="No space left on device; the one before it is kept"):
        train(job(tmp_path), saved.load(tmp_path))
    assert (tmp_path / saved.FILE).read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == [saved.FILE]


def test_data_without_a_step_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PointsTask, "steps_in", lambda *_: 0)
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(job(tmp_path))


def test_a_model_without_an_adapter_is_refused() -> None:
    model = Classifier()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="it has no adapter"):
        Plain(model, 0.1, 0.0)


def test_vectors_do_not_decay() -> None:
    groups = Plain(Classifier(), 0.1, 0.5)._optimizer.param_groups
    assert [(group["weight_decay"], [one.ndim for one in group["params"]]) for group in groups] == [
        (0.5, [2]),
        (0.0, [1]),
    ]


def test_everything_that_is_shown_of_a_step_is_there(tmp_path: Path) -> None:
    record = Record()
    _, outcome = trained(tmp_path, record, epochs=1)
    last = record.steps[-1]
    assert (last.step, last.steps, last.epoch, last.tokens) == (6, 6, 0, 8)
    assert 0 < last.labelled <= 8 and last.seconds > 0 and last.memory and math.isfinite(last.norm)
    assert last.rate == pytest.approx(settings().learning_rate * 0.5 * (1 + math.cos(math.pi * 4 / 5)))  # type: ignore[operator]
    assert outcome.position.tokens == 48 and outcome.position.labelled == sum(one.labelled for one in record.steps)
