"""Steps of recordings, their caches, and the word error rate of what a model says itself."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.finetune.data.augment import Spoken
from sottovoce_compiler.finetune.data.speech import SpeechData, SpeechOptions
from sottovoce_compiler.finetune.model.decoder import Kept
from sottovoce_compiler.finetune.model.whisper import WhisperTraining
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.tasks import speech
from sottovoce_compiler.finetune.tasks.speech import SpeechTask, length
from sottovoce_compiler.finetune.trainer.task import Task
from sottovoce_compiler.finetune.trainer.world import Alone
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.sources import Checkpoint, resolve

from ...whisper_case import checkpoint_of, random_model, sweep

ONE = Alone()


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return checkpoint_of(random_model())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings of 0.3 to 1.4 s."""
    folder = tmp_path_factory.mktemp("speech")
    with (folder / "data.jsonl").open("w") as out:
        for at in range(12):
            soundfile.write(folder / f"{at}.wav", sweep(0.3 + at / 10, at), 16_000)
            out.write(json.dumps({"file": f"{at}.wav", "text": f"text {at}", "language": "en"}) + "\n")
    return folder / "data.jsonl"


def task_of(checkpoint: Checkpoint, file: Path, **settings: Any) -> SpeechTask:
    chosen = Settings(data=str(file), batch_tokens=600, **settings).completed("speech", "cpu")
    data = SpeechData.load(file, checkpoint, SpeechOptions(eval_fraction=0.25, seed=1))
    return SpeechTask(data.train, data.eval, data.spec, data.steering, data.table, chosen, file.name)


def lines(task: SpeechTask, epoch: int, world: Any = ONE, skip: int = 0) -> list[list[tuple[int, ...]]]:
    return [[one.text.examples for one in step.batches] for step in task.epoch(epoch, world, skip)]


def test_an_epoch_sees_every_recording_once_in_batches_that_fit(checkpoint: Checkpoint, file: Path) -> None:
    task: Task = task_of(checkpoint, file)
    assert isinstance(task, SpeechTask)
    steps = list(task.epoch(0, ONE))
    assert len(steps) == task.steps_in(0, ONE) > 1
    seen = [line for step in steps for one in step.batches for line in one.text.examples]
    assert sorted(seen) == sorted(example.line for example in task.train)
    for step in steps:
        for one in step.batches:
            assert task.seen(one) <= 600
            assert len(one.features) == len(one.text.segments.lengths)
            assert one.labelled > 0


def test_a_length_is_the_rows_that_the_model_computes(checkpoint: Checkpoint, file: Path) -> None:
    task = task_of(checkpoint, file)
    model = WhisperTraining(checkpoint, task.spec, Kept())
    for step in task.epoch(0, ONE):
        for one in step.batches:
            encoded = model.encode(one.features)
            assert task.seen(one) == len(encoded.frames) + len(one.text.tokens)
    by_line = {example.line: example for example in task.train}
    for step in task.epoch(3, ONE):
        for one in step.batches:
            rows = sum(length(by_line[line], task.spec) for line in one.text.examples)
            assert 0 <= rows - task.seen(one) <= len(one.features)  # counted with timestamps: one token more


def test_the_same_epoch_is_the_same_whatever_was_asked_before(checkpoint: Checkpoint, file: Path) -> None:
    first, second = task_of(checkpoint, file), task_of(checkpoint, file)
    random.seed(3)
    state = random.getstate()
    before = lines(first, 1)
    assert random.getstate() == state
    lines(second, 0)
    assert lines(second, 1) == before
    assert lines(second, 1, skip=1) == before[1:]
    assert lines(task_of(checkpoint, file, seed=4), 1) != before
    ids = [[one.text.tokens.tolist() for one in step.batches] for step in first.epoch(1, ONE)]
    assert ids == [[one.text.tokens.tolist() for one in step.batches] for step in second.epoch(1, ONE)]


def test_about_half_of_the_recordings_have_timestamps_and_others_the_next_time(
    checkpoint: Checkpoint, file: Path
) -> None:
    task = task_of(checkpoint, file)
    plain = task.steering.no_timestamps
    counts = []
    for epoch in range(20):
        tokens = torch.cat([one.text.tokens for step in task.epoch(epoch, ONE) for one in step.batches])
        counts.append(int((tokens == plain).sum()))
    assert 0.3 < 1 - np.mean(counts) / len(task.train) < 0.7
    assert len(set(counts)) > 1


def test_two_processes_see_each_recording_once(checkpoint: Checkpoint, file: Path) -> None:
    task = task_of(checkpoint, file)
    worlds = [Alone(rank=rank, size=2) for rank in (0, 1)]
    steps = [list(task.epoch(0, world)) for world in worlds]
    assert len(steps[0]) == len(steps[1]) == task.steps_in(0, worlds[0])
    batches = [one for each in steps for step in each for one in step.batches]
    seen = sorted(line for one in batches for line in one.text.examples)
    assert seen == sorted(example.line for example in task.train)
    model = WhisperTraining(checkpoint, task.spec, Kept())
    for one in batches:
        assert torch.isfinite(model(one).total)  # those without recordings too


def test_spectrograms_are_kept_while_there_is_room(checkpoint: Checkpoint, file: Path) -> None:
    task = task_of(checkpoint, file)
    with patch.object(speech, "log_mel", wraps=speech.log_mel) as heard:
        before = [one.features[0].values.clone() for step in task.epoch(0, ONE) for one in step.batches]
        assert heard.call_count == len(task.train)
        after = [one.features[0].values for step in task.epoch(0, ONE) for one in step.batches]
        assert heard.call_count == len(task.train)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    with patch.object(speech, "CACHE_BYTES", 0):
        poor = task_of(checkpoint, file)
    with patch.object(speech, "log_mel", wraps=speech.log_mel) as heard:
        again = [one.features[0].values for _ in range(2) for step in poor.epoch(0, ONE) for one in step.batches]
        assert heard.call_count == 2 * len(task.train)
    assert all(torch.equal(one, other) for one, other in zip(before * 2, again, strict=True))


def test_the_loss_is_that_of_the_evaluation_split(checkpoint: Checkpoint, file: Path) -> None:
    task = task_of(checkpoint, file, measure="loss")
    model = WhisperTraining(checkpoint, task.spec, Kept()).eval()
    seen: list[float] = []
    with torch.no_grad():
        metrics = task.evaluate(model, ONE, seen.append)
        halves = [task_of(checkpoint, file, measure="loss") for _ in range(2)]
        parts = [half._loss(model, Alone(rank=rank, size=2), lambda done: None) for rank, half in enumerate(halves)]
    assert metrics.tokens == sum(example.labelled for example in task.evaluation)
    assert metrics.measure == metrics.loss == pytest.approx(sum(part[0] for part in parts) / metrics.tokens, rel=1e-5)
    assert seen[-1] == 1.0


def test_errors_are_those_of_what_the_model_says(checkpoint: Checkpoint, file: Path) -> None:
    task = task_of(checkpoint, file)
    model = WhisperTraining(checkpoint, task.spec, Kept()).eval()
    with torch.no_grad():
        said = task.transcripts(model, task.evaluation, lambda done: None)
        told = replace_texts(task, said)
        metrics, perfect = task.evaluate(model, ONE), told.evaluate(model, ONE)
    assert perfect.measure == 0.0
    assert metrics.measure == metrics.more["errors"] / metrics.more["words"]
    assert metrics.examples == len(task.evaluation)


def replace_texts(task: SpeechTask, texts: list[str]) -> SpeechTask:
    """The task with other truths; an empty one cannot be judged, and is replaced by a word that is not said."""
    examples = [
        replace(one, utterance=replace(one.utterance, spoken=(Spoken(text, 0.0, one.seconds),)))
        for one, text in zip(task.evaluation, texts, strict=True)
    ]
    return SpeechTask(task.train, examples, task.spec, task.steering, task.table, task.settings, task.name)


def test_a_batch_says_which_lines_it_is_made_of(checkpoint: Checkpoint, file: Path) -> None:
    task = task_of(checkpoint, file)
    batch = next(iter(task.epoch(0, ONE))).batches[0]
    named = ", ".join(str(line) for line in sorted(batch.text.examples))
    assert task.where(batch) in (f"data.jsonl, lines {named}", f"data.jsonl, line {named}")


@pytest.mark.weights
def test_tiny_in_english_transcribes_the_built_in_set_nearly_without_errors(tmp_path: Path) -> None:
    checkpoint = resolve("whisper-tiny.en")
    clips = [clip for clip in builtin_set().clips if clip.is_speech and 2 < clip.seconds < 15]
    manifest = tmp_path / "data.jsonl"
    manifest.write_text("".join(json.dumps({"file": str(c.file), "text": c.text}) + "\n" for c in clips))
    chosen = Settings(data=str(manifest), batch_tokens=4096).completed("speech", "cpu")
    data = SpeechData.load(manifest, checkpoint)
    task = SpeechTask((), data.train, data.spec, data.steering, data.table, chosen, "data.jsonl")
    model = WhisperTraining(checkpoint, whisper_spec(checkpoint), Kept()).eval()
    with torch.no_grad():
        metrics = task.evaluate(model, ONE)
    assert metrics.measure < 0.15
    assert metrics.loss < 2.0
