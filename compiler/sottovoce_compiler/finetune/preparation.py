"""Everything a run needs before its first step, from the settings and the source: data as examples, the task, and how
to make the model. Nothing heavy is done until the cheap checks have passed.

Knows both kinds of task, text and speech, and which one a model is for. Trains nothing.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from sottovoce.errors import InputError
from sottovoce_compiler.adapter import placed
from sottovoce_compiler.families import SPEECH, family_of, language_model
from sottovoce_compiler.finetune.adapter_folder import load_adapter
from sottovoce_compiler.finetune.data.augment import ways_of
from sottovoce_compiler.finetune.data.dataset import TextData, TextOptions
from sottovoce_compiler.finetune.data.speech import SpeechData, SpeechOptions
from sottovoce_compiler.finetune.model import TrainingModel
from sottovoce_compiler.finetune.model.adapted import AdaptedLinear, Lora, Method, attach_all
from sottovoce_compiler.finetune.model.decoder import Decoder, Kept
from sottovoce_compiler.finetune.model.whisper import WhisperTraining
from sottovoce_compiler.finetune.packing import Decision, bins_of, pays, statistics
from sottovoce_compiler.finetune.profiles import chosen_modules, profile_of
from sottovoce_compiler.finetune.settings import Kind, Settings, SettingsError, options
from sottovoce_compiler.finetune.tasks.chat import ChatTask, generated
from sottovoce_compiler.finetune.tasks.speech import SpeechTask
from sottovoce_compiler.finetune.trainer.task import Task
from sottovoce_compiler.report.table import Table
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_compiler.sources.peft import LoraAdapter, open_adapter

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Adaptable(TrainingModel, Protocol):
    """A model that adapters can be attached to."""

    def linears(self) -> Mapping[str, AdaptedLinear]:
        """Every matrix that may get one, by the module's name as PEFT has it."""
        ...


class DataReport(Protocol):
    """What is known of a file's examples: for a person, for a script, and as a digest of all that is learned and
    measured."""

    @property
    def sha256(self) -> str: ...
    def tables(self) -> Sequence[Table]: ...
    def notes(self) -> Sequence[str]: ...
    def to_json(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run is made of. `make_model` reads the weights, in the dtype and on the device of the settings;
    `targets` are the ends of the names of what gets an adapter."""

    checkpoint: Checkpoint
    family: str
    settings: Settings
    task: Task
    data: DataReport
    packing: Decision
    targets: Sequence[str]
    make_model: Callable[[], Adaptable]
    task_type: str | None  # PEFT's word
    begun_with: LoraAdapter | None = None

    def identity(self, world_size: int) -> dict[str, Any]:
        """The values without which a checkpoint is another run's."""
        chosen = self.settings
        model = hashlib.sha256(repr(sorted(self.checkpoint.sha256.items())).encode()).hexdigest()
        begun = None if self.begun_with is None else sorted(self.begun_with.sha256.items())
        names = (
            "method",
            "rank",
            "alpha",
            "strength",
            "targets",
            "quantize",
            "dropout",
            "seed",
            "batch_tokens",
            "dtype",
            "measure",
        )
        return {
            "model": model,
            "data": self.data.sha256,
            **{name: getattr(chosen, name) for name in names},
            "from_adapter": None if begun is None else hashlib.sha256(repr(begun).encode()).hexdigest(),
            "accumulation times processes": chosen.accumulation * world_size,
            "packing": self.packing.use,
            "measure": chosen.measure,
        }


def choose_device(settings: Settings) -> str:
    """ "cpu" or "cuda". Raises InputError where a GPU is asked for that is not there."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device = 'cuda', but torch finds no GPU here; choose cpu, or leave it to auto")
    return "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"


def kind_of(checkpoint: Checkpoint) -> Kind:
    """What a model of this family is trained on. Raises UnsupportedModelError for an unknown one."""
    return "speech" if family_of(checkpoint.config, checkpoint.name) in SPEECH else "text"


def prepare(checkpoint: Checkpoint, settings: Settings) -> Prepared:
    """The run of `settings` on `checkpoint`, whose weights are not read yet.

    Raises SettingsError and InputError for options that do not go with the model, DataError for lines that cannot be
    used, SourceError and UnsupportedModelError for the model or for an adapter of another one.
    """
    kind = kind_of(checkpoint)
    completed = settings.completed(kind, choose_device(settings))
    if completed.data is None:
        raise InputError("nothing to train on: give --data FILE.jsonl, or data in the config")
    begun_with = None
    if completed.from_adapter is not None:
        begun_with = open_adapter(Path(completed.from_adapter).expanduser())
        placed(begun_with, checkpoint)
        completed = _as_adapter(completed, settings, begun_with)
    prepared = (_prepare_speech if kind == "speech" else _prepare_text)(checkpoint, completed)
    return replace(prepared, begun_with=begun_with)


def load_model(prepared: Prepared) -> Adaptable:
    """The model of a run, with its adapters, on its device."""
    model, settings = prepared.make_model(), prepared.settings
    linears = model.linears()
    if prepared.begun_with is None:
        chosen = chosen_modules(list(linears), prepared.targets)
        attach_all({name: linears[name] for name in chosen}, lora_of(settings), settings.seed)
    else:
        load_adapter(linears, prepared.begun_with, settings.dropout)
    model.checkpointing = settings.checkpointing
    return model


def _prepare_text(checkpoint: Checkpoint, settings: Settings) -> Prepared:
    family = family_of(checkpoint.config, checkpoint.name)
    targets = profile_of(family).targets(target_names(settings))
    path, size = _file(settings.data), settings.batch_tokens or 1
    chosen = TextOptions(
        max_tokens=settings.context,
        overflow=settings.too_long,  # type: ignore[arg-type]
        answer_marker=settings.answer_marker,
        earlier_answers=settings.earlier_answers,  # type: ignore[arg-type]
        variables=settings.variables(),
        eval_fraction=settings.eval_fraction,
        seed=settings.seed,
        date=datetime.fromisoformat(settings.day) if settings.day else None,
    )
    data = TextData.load(path, checkpoint, chosen, eval_data=_file(settings.eval_data) if settings.eval_data else None)
    lengths = [len(one) for one in data.train]
    decision = pays(lengths, size) if settings.packing is None else _asked(settings.packing)
    figures = statistics(lengths, bins_of(lengths, size, settings.seed, 0, decision.use), size)
    settings = replace(settings, day=settings.day or data.report.date, packing=decision.use)
    settings = settings if data.eval else settings.unmeasured()

    def answer(model: TrainingModel, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        return generated(model, prompts, settings.max_new_tokens, data.coder.ends)

    def make_model() -> Adaptable:
        return Decoder(language_model(checkpoint), kept_as(settings))

    return Prepared(
        checkpoint,
        family,
        settings,
        ChatTask(data.train, data.eval, data.coder, answer, settings, decision.use, path.name),
        data.report,
        Decision(decision.use, f"{decision.reason}; {figures}"),
        targets,
        make_model,
        "CAUSAL_LM",
    )


def _prepare_speech(checkpoint: Checkpoint, settings: Settings) -> Prepared:
    targets = profile_of("whisper").targets(target_names(settings))
    path = _file(settings.data)
    chosen = SpeechOptions(
        settings.too_long,  # type: ignore[arg-type]
        settings.eval_fraction,
        settings.seed,
        ways_of(settings.augment or "none"),
    )
    data = SpeechData.load(
        path, checkpoint, chosen, eval_data=_file(settings.eval_data) if settings.eval_data else None
    )
    settings = replace(settings, packing=True)
    settings = settings if data.eval else settings.unmeasured()

    def make_model() -> Adaptable:
        return WhisperTraining(checkpoint, data.spec, kept_as(settings))

    return Prepared(
        checkpoint,
        "whisper",
        settings,
        SpeechTask(data.train, data.eval, data.spec, data.steering, data.table, settings, path.name),
        data.report,
        Decision(True, "packing: recordings share a row, without padding"),
        targets,
        make_model,
        None,
    )


def _as_adapter(completed: Settings, asked: Settings, adapter: LoraAdapter) -> Settings:
    """The settings with what the adapter already is. Raises SettingsError where something else was asked for."""
    first = max(adapter.pairs, key=lambda pair: pair.rank)
    found: dict[str, Any] = {
        "method": "dora" if first.dora else "lora",
        "rank": first.rank,
        "alpha": first.scale * first.rank,
    }
    for name, value in found.items():
        default = options()[name][1]
        if (wanted := getattr(asked, name)) not in (default, value):
            raise SettingsError(f"{name} = {wanted!r}, but {adapter.folder} has {value!r}; leave it out")
    return replace(completed, **found)


def kept_as(settings: Settings) -> Kept:
    """How the frozen weights are held."""
    quantize = None if settings.quantize == "none" else settings.quantize
    return Kept(DTYPES[settings.dtype], quantize, settings.device)  # type: ignore[arg-type]


def lora_of(settings: Settings) -> Lora:
    """The adapter that the settings ask for."""
    assert settings.alpha is not None
    method: Method = settings.method  # type: ignore[assignment]
    return Lora.of(method, settings.rank, settings.alpha, settings.dropout, settings.strength)


def target_names(settings: Settings) -> list[str] | None:
    """The roles or modules that were chosen, None where nobody did."""
    if settings.targets is None:
        return None
    return [name.strip() for name in settings.targets.split(",") if name.strip()]


def _asked(packing: bool) -> Decision:
    return Decision(packing, "packing: it was asked for" if packing else "no packing: it was asked for")


def _file(name: str | None) -> Path:
    return Path(name or "").expanduser()
