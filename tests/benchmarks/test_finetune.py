import json
from dataclasses import asdict
from pathlib import Path

import finetune
import pytest
from finetune_systems import IGNORED, Job, Run

QUICK = Run(cpu_s=2.0, wall_s=1.5, tokens=300, loaded_mb=100, peak_mb=200, losses=[2.0, 1.5])
SLOW = Run(cpu_s=8.0, wall_s=6.0, tokens=300, loaded_mb=50, peak_mb=1000, losses=[2.0, 1.51])


def plan(**changes: object) -> finetune.Plan:
    defaults = {
        "model": None,
        "data": None,
        "steps": 3,
        "uncounted": 1,
        "repetitions": 1,
        "threads": 2,
        "seed": 0,
        "longest": 1024,
    }
    return finetune.Plan(**{**defaults, "work": Path(), "output": Path("x"), "add": False, **changes})


def test_ratios_are_of_runs_that_took_turns() -> None:
    slower = Run(4.0, 3.0, 300, 100, 400, [2.0, 1.5])
    found = finetune.figures({finetune.OURS: [QUICK, slower, QUICK], finetune.PEFT: [SLOW, SLOW, SLOW]})
    assert found[finetune.OURS]["tokens_per_core_s"] == 150 and found[finetune.PEFT]["peak_mb"] == 1000
    assert found["ratios"]["tokens a core-second"] == 4 and found["ratios"]["peak memory"] == 0.2
    assert found["losses_apart"] == pytest.approx(0.01)


def test_drawn_lengths_are_the_same_for_a_seed_and_as_spread_as_they_are_said_to_be() -> None:
    data = finetune._from_lengths(plan(steps=200))
    assert data == finetune._from_lengths(plan(steps=200)) != finetune._from_lengths(plan(steps=200, seed=1))
    lengths = sorted(len(tokens) for step in data for tokens, _ in step)
    assert 84 < lengths[len(lengths) // 2] < 102 and lengths[0] >= 16 and 500 < lengths[-1] <= 1024
    settings = finetune._settings(plan(), [[([1, 2, 3, 4], [IGNORED, IGNORED, 3, 4])], [([5, 6], [5, 6]), ([7], [7])]])
    assert (settings["tokens"], settings["learned"], settings["share_of_a_padded_batch"]) == (3, 1, 0.75)


def test_a_job_reaches_its_process_as_it_was() -> None:
    job = Job("ours", Path("model"), [[([1, 2], [IGNORED, 2])], [([3], [3])]], 1, 2)
    again = Job.from_json(job.to_json())
    assert again.counted_tokens == 1 and json.loads(again.to_json()) == json.loads(job.to_json())


def test_repetitions_are_added_to_a_result_of_the_same_settings_only(tmp_path: Path) -> None:
    runs = {finetune.OURS: [asdict(QUICK)], finetune.PEFT: [asdict(SLOW)]}
    (tmp_path / "r.json").write_text(json.dumps({"settings": {"seed": 0, "longest": 1024}, "threads": 2, "runs": runs}))
    more = plan(output=tmp_path / "r", add=True)
    assert finetune._earlier(more, {"seed": 0, "longest": 1024}) == {finetune.OURS: [QUICK], finetune.PEFT: [SLOW]}
    with pytest.raises(SystemExit, match="has other settings"):
        finetune._earlier(more, {"seed": 1})
    assert finetune._earlier(plan(), {}) == {finetune.OURS: [], finetune.PEFT: []}
