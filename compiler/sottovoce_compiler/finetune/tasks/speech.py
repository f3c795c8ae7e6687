"""Whisper as a task: recordings with their texts, the loss, and the word error rate of what the model itself says.

What it says is decoded by the runtime's own rules, and counted as the report counts. Knows examples and the model that
hears them. Files are behind it, steps and checkpoints before it.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch

from sottovoce.audio import SAMPLE_RATE
from sottovoce.decoding.grammar import Tokens
from sottovoce.pieces import Piece, PieceDecoder
from sottovoce.tokens import TokenTable
from sottovoce.types import TranscribeOptions
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.finetune.batches import LogMel, SpeechBatch
from sottovoce_compiler.finetune.data.speech import LEAD_SAMPLES, SpeechExample
from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.model.log_mel import context_frames, log_mel
from sottovoce_compiler.finetune.model.whisper import WhisperTraining, kept_frames
from sottovoce_compiler.finetune.model.whisper_engine import TorchWhisper
from sottovoce_compiler.finetune.packing import collate, epoch_batches, pack, steps_in
from sottovoce_compiler.finetune.settings import Settings
from sottovoce_compiler.finetune.tasks.chat import NAMED_LINES
from sottovoce_compiler.finetune.trainer.task import Metrics, Progress, Step
from sottovoce_compiler.finetune.trainer.world import World
from sottovoce_compiler.report.score import ErrorCounts, count_errors, total

TIMED: Final = 0.5  # share of the examples that are seen with timestamps; the device decodes with and without
CACHE_BYTES: Final = 1 << 30  # of spectrograms that are kept: 9 hours of 80 mels
DECODED_TOGETHER: Final = 8  # recordings, as the runtime has it


@dataclass(frozen=True, slots=True)
class SpeechTask:
    """A `Task` of recordings. `train` and `evaluation` are examples, `name` is that of the data, for messages;
    `settings` are completed. Batches are as many rows of encoder and decoder as `settings.batch_tokens`."""

    train: Sequence[SpeechExample]
    evaluation: Sequence[SpeechExample]
    spec: WhisperSpec
    steering: Tokens
    table: TokenTable
    settings: Settings
    name: str
    _cache: "_Cache" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cache", _Cache(self.spec))

    @property
    def measure(self) -> str:
        """ "loss" or "wer"."""
        return self.settings.measure or "loss"

    @property
    def lower_is_better(self) -> bool:
        """Always."""
        return True

    def steps_in(self, epoch: int, world: World) -> int:
        """Steps of an epoch."""
        each = world.size * self.settings.accumulation
        return steps_in(self._lengths(self.train), self._size(), each, self.settings.seed, epoch, packing=True)

    def epoch(self, epoch: int, world: World, skip: int = 0) -> Iterator[Step]:
        """This process's steps."""
        lengths, size, settings = self._lengths(self.train), self._size(), self.settings
        plan = epoch_batches(
            lengths, size, settings.accumulation, settings.seed, epoch, world.rank, world.size, packing=True
        )
        for step in plan[skip:]:
            yield Step(tuple(self._batch(self.train, one, self._timed(one, epoch)) for one in step))

    def evaluate(self, model: TrainingModel, world: World, progress: Progress = lambda done: None) -> Metrics:
        """The loss of every example of the evaluation split, without timestamps; with "wer" also the word errors
        (character errors in languages without words) in what the model says of the first `settings.eval_examples`."""
        share = 1.0 if self.measure == "loss" else 0.3  # of the time: decoding takes longer
        sum_of_losses, tokens = world.sum(self._loss(model, world, lambda done: progress(share * done)))
        loss = sum_of_losses / max(1.0, tokens)
        if self.measure == "loss":
            return Metrics(loss, int(tokens), loss, len(self.evaluation))
        mine = self.asked()[world.rank :: world.size]
        counts = total(self.errors(model, mine, lambda done: progress(0.3 + 0.7 * done)))
        errors, reference, count = world.sum([counts.errors, counts.reference, len(mine)])
        more = {"errors": int(errors), "words": int(reference)}
        return Metrics(loss, int(tokens), errors / max(1.0, reference), int(count), more)

    def asked(self) -> Sequence[SpeechExample]:
        """The recordings that are transcribed."""
        return self.evaluation[: self.settings.eval_examples or None]

    def errors(self, model: TrainingModel, examples: Sequence[SpeechExample], progress: Progress) -> list[ErrorCounts]:
        """What is wrong in the model's own transcript of each example."""
        said = self.transcripts(model, examples, progress)
        return [count_errors(one.text, text, one.language or "en") for one, text in zip(examples, said, strict=True)]

    def transcripts(self, model: TrainingModel, examples: Sequence[SpeechExample], progress: Progress) -> list[str]:
        """What the model says of each, decoded greedily with timestamps as the device does by default."""
        engine = TorchWhisper(cast(WhisperTraining, model))
        texts: list[str] = [""] * len(examples)
        order = sorted(range(len(examples)), key=lambda at: (examples[at].task, examples[at].seconds))
        done = 0
        for group in _groups(order, examples):
            options = TranscribeOptions(task=examples[group[0]].task, language="en", temperature=(0.0,))
            decoder = PieceDecoder(engine, self.steering, self.table, options)
            begun = decoder.begin([Piece(examples[at].utterance.sound.load(), 0) for at in group])
            found = decoder.decode(begun, [examples[at].language or "en" for at in group])
            for at, segments in zip(group, found, strict=True):
                texts[at] = "".join(segment.text for segment in segments).strip()
            done += len(group)
            progress(done / len(examples))
        return texts

    def seen(self, batch: Any) -> int:
        """Rows of encoder and decoder."""
        frames = sum(_rows(one.context, self.spec.n_audio_ctx) for one in batch.features)
        return frames + int(batch.text.tokens.numel())

    def where(self, batch: Any) -> str:
        """Lines of the data."""
        lines = sorted(set(batch.text.examples))
        if not lines:
            return f"{self.name}, no line"
        more = f" and {len(lines) - NAMED_LINES} more" if len(lines) > NAMED_LINES else ""
        return f"{self.name}, line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:NAMED_LINES]))}{more}"

    def _timed(self, indices: Sequence[int], epoch: int) -> list[bool]:
        """Which of the examples are seen with timestamps in an epoch."""
        return [random.Random(f"{self.settings.seed} {epoch} {index} timed").random() < TIMED for index in indices]

    def _batch(self, examples: Sequence[SpeechExample], indices: Sequence[int], timed: Sequence[bool]) -> SpeechBatch:
        chosen = [examples[index] for index in indices]
        texts = [one.timed if with_times else one.plain for one, with_times in zip(chosen, timed, strict=True)]
        # Without examples: a moment of silence, of which nothing is learned.
        features = [self._cache.features(one) for one in chosen] or [self._cache.hear(torch.zeros(1))]
        return SpeechBatch(tuple(features), collate(texts))

    def _loss(self, model: TrainingModel, world: World, progress: Progress) -> list[float]:
        """Sum and count over this process's share of the split."""
        bins = pack(self._lengths(self.evaluation), self._size(), 0)
        total_loss, tokens, device = 0.0, 0, next(p.device for _, p in model.named_parameters())
        # All run as many: what several processes hold of a model in common is gathered together.
        rounds = -(-len(bins) // world.size)
        for number in range(rounds):
            place = number * world.size + world.rank
            mine = bins[place] if place < len(bins) else ()
            loss = model(self._batch(self.evaluation, mine, [False] * len(mine)).to(device))
            total_loss, tokens = total_loss + float(loss.total), tokens + loss.tokens
            progress((number + 1) / rounds)
        return [total_loss, float(tokens)]

    def _lengths(self, examples: Sequence[SpeechExample]) -> list[int]:
        return [length(one, self.spec) for one in examples]

    def _size(self) -> int:
        assert self.settings.batch_tokens is not None
        return self.settings.batch_tokens


def length(example: SpeechExample, spec: WhisperSpec) -> int:
    """Rows of encoder and decoder that an example takes."""
    context = context_frames(round(example.seconds * SAMPLE_RATE) + LEAD_SAMPLES, spec.n_audio_ctx)
    return _rows(context, spec.n_audio_ctx) + len(example.timed)


def _rows(context: int, window: int) -> int:
    return context + len(kept_frames(context, window))


def _groups(order: Sequence[int], examples: Sequence[SpeechExample]) -> Iterator[list[int]]:
    """Neighbours of one task, at most `DECODED_TOGETHER`."""
    group: list[int] = []
    for at in order:
        if group and (len(group) == DECODED_TOGETHER or examples[at].task != examples[group[0]].task):
            yield group
            group = []
        group.append(at)
    if group:
        yield group


class _Cache:
    """What Whisper hears of each example, kept as long as there is room."""

    def __init__(self, spec: WhisperSpec) -> None:
        self._spec, self._left = spec, CACHE_BYTES
        self._kept: dict[bytes, LogMel] = {}

    def features(self, example: SpeechExample) -> LogMel:
        """Its spectrogram, with the device's silence before and behind."""
        if (kept := self._kept.get(example.utterance.digest)) is not None:
            return kept
        found = self.hear(torch.from_numpy(example.heard()))
        if found.values.nbytes <= self._left:
            self._left -= found.values.nbytes
            self._kept[example.utterance.digest] = found
        return found

    def hear(self, samples: torch.Tensor) -> LogMel:
        """(n,) float32 samples -> their spectrogram."""
        return log_mel(samples, self._spec.n_mels, self._spec.n_audio_ctx)
