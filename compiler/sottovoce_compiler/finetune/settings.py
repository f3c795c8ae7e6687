"""Everything about a fine-tuning run that can be chosen: one table, from which the command line, the keys of a config
file and settings.json are made.

Knows the options, their ranges, and what each is where nobody chose (which may depend on the kind of task). Does not
know models or data; what only they can tell (a context that is too long, a module that is not there) is checked there.
"""

import difflib
import json
import math
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.data.augment import ways_of

Kind = Literal["text", "speech"]

DEVICE_DTYPES = {"cpu": "bfloat16", "cuda": "bfloat16"}
PATHS = ("data", "eval_data", "from_adapter")  # relative to the file that names them
MAX_CONFIG_BYTES = 1 << 20


class SettingsError(InputError):
    """An option that is not known, or a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: where its help stands, what it says, and which values are allowed."""

    group: str
    help: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # `low` itself is not allowed
    choices: tuple[str, ...] = ()
    metavar: str = ""
    check: Callable[[str], object] | None = None  # raises InputError for a text that cannot be


GROUPS = {
    "data": "What is learned from and measured on.",
    "adapter": "What is trained beside the frozen model.",
    "training": "How it is trained.",
    "evaluation": "When and how it is measured, and what is kept.",
}


def _of(default: Any, group: str, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"option": Option(group, help, **more)})


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"template_variables = {text!r:.80}: {error}") from None
    if not isinstance(found, dict):
        raise SettingsError(f"template_variables = {text!r:.80}; a JSON object is needed")
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a run. None is filled in by `completed`, from the kind of task and the machine."""

    data: str | None = _of(None, "data", "lines of JSON to train on: chat, instructions, text, or audio with text")
    eval_data: str | None = _of(None, "data", "lines to measure on; default: a share of --data is held back")
    eval_fraction: float = _of(0.1, "data", "share of --data held back where there is no --eval-data", low=0, high=0.9)
    answer_marker: str | None = _of(
        None, "data", "in plain text, learn only what follows the last of these, as '\\nA: ' (\\n is a line's end)"
    )
    context: int | None = _of(
        None, "data", "longest example; default: the model's own context", low=8, metavar="TOKENS"
    )
    too_long: str = _of(
        "error",
        "data",
        "what longer examples are: refused, cut or dropped, and counted",
        choices=("error", "cut", "drop"),
    )
    day: str | None = _of(
        None, "data", "the day that a chat template writes, where it does; default: today", metavar="YYYY-MM-DD"
    )
    earlier_answers: str = _of(
        "leave",
        "data",
        "answers before the last that a template writes otherwise by then (without their thinking): left out, or "
        "learned in examples of their own",
        choices=("leave", "separate"),
    )
    template_variables: str | None = _of(
        None,
        "data",
        "what else a chat template may read, as '{\"enable_thinking\": false}'",
        metavar="JSON",
        check=_object,
    )
    augment: str | None = _of(
        None,
        "data",
        "learn recordings also at other speeds (speed), after each other (join), in part hidden (mask), as speed,mask; "
        "default: none",
        metavar="WAYS",
        check=ways_of,
    )
    packing: bool | None = _of(None, "data", "short examples share a row, unpadded and apart; default: where it pays")

    from_adapter: str | None = _of(
        None, "adapter", "begin with this one, of the same model, not with a new one", metavar="DIR"
    )
    method: str = _of("lora", "adapter", "rsLoRA scales by the root of the rank, DoRA trains magnitudes too",
                      choices=("lora", "rslora", "dora"))  # fmt: skip
    rank: int = _of(16, "adapter", "inner size of each pair of matrices", low=1, high=1024)
    alpha: float | None = _of(None, "adapter", "scale is alpha / rank; default: twice the rank", low=0, above=True)
    strength: float = _of(
        1.0,
        "adapter",
        "share of what was learned that is measured and saved; less than 1 keeps more of what the model knew before",
        low=0,
        high=1,
        above=True,
    )
    dropout: float = _of(0.0, "adapter", "share of the input that the adapter does not see", low=0, high=0.9)
    targets: str | None = _of(
        None, "adapter", "which matrices, as q,v or decoder,encoder.fc1; default: all of the layers", metavar="ROLES"
    )
    quantize: str = _of("none", "adapter", "hold the frozen weights in 8 or 4 bits: slower on a CPU, less memory",
                        choices=("none", "int8", "nf4"))  # fmt: skip

    epochs: int = _of(3, "training", "times that every example is seen", low=1, high=10_000)
    steps: int | None = _of(None, "training", "optimizer steps instead of --epochs", low=1)
    batch_tokens: int | None = _of(
        None, "training", "tokens of one forward pass; default: 2048 for text, 4096 for speech", low=8, metavar="TOKENS"
    )
    accumulation: int = _of(1, "training", "forward passes of one optimizer step", low=1, high=4096)
    learning_rate: float | None = _of(
        None, "training", "at its highest; default: 1e-3 for text, 5e-4 for speech", low=0, high=1, above=True
    )
    schedule: str = _of("cosine", "training", "how the learning rate falls after the warm-up",
                        choices=("cosine", "linear", "constant"))  # fmt: skip
    warmup: float = _of(0.05, "training", "share of the steps in which the learning rate rises", low=0, high=1)
    weight_decay: float = _of(0.0, "training", "of matrices, never of vectors", low=0, high=1)
    clip: float = _of(1.0, "training", "longest gradient, all parameters together; 0: any", low=0)
    dtype: str = _of("auto", "training", "what the model computes in; adapters are always float32",
                     choices=("auto", "float32", "bfloat16", "float16"))  # fmt: skip
    device: str = _of("auto", "training", "auto takes a GPU where there is one", choices=("auto", "cpu", "cuda"))
    checkpointing: bool = _of(False, "training", "compute layers again in the backward pass: slower, less memory")
    parallel: str = _of("auto", "training", "how several processes hold a model; auto: by its size",
                        choices=("auto", "ddp", "fsdp2", "zero2", "zero3"))  # fmt: skip
    seed: int = _of(0, "training", "same seed, same run", low=0, high=2**31)

    measure: str | None = _of(None, "evaluation", "decides which step is kept; default: loss for text, wer for speech",
                              choices=("loss", "exact_match", "wer"))  # fmt: skip
    eval_every: int | None = _of(None, "evaluation", "steps between evaluations; default: an epoch", low=1)
    eval_examples: int = _of(200, "evaluation", "answers generated for a measure that needs them; 0: all", low=0)
    max_new_tokens: int = _of(128, "evaluation", "longest generated answer", low=1, high=4096, metavar="TOKENS")
    patience: int | None = _of(None, "evaluation", "stop after so many evaluations without a better one", low=1)
    save_every: int | None = _of(None, "evaluation", "steps between checkpoints; default: at evaluations", low=1)

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one.name, getattr(self, one.name))
        if self.eval_data is None and self.eval_fraction == 0 and (self.patience or self.measure not in (None, "loss")):
            asked = "patience" if self.patience else f"measure = {self.measure!r}"
            raise SettingsError(f"{asked} needs something to measure on: eval_data, or an eval_fraction above 0")
        if self.day is not None:
            try:
                date.fromisoformat(self.day)
            except ValueError:
                raise SettingsError(f"day = {self.day!r:.40}; a day as 2026-11-27 is needed") from None

    def completed(self, kind: Kind, device: str) -> "Settings":
        """The settings in effect on `device` ("cpu" or "cuda"), nothing left to be decided but `packing`, `context`
        and `targets`, which depend on data and model. Raises SettingsError for what does not go with the task."""
        speech = kind == "speech"
        measure = self.measure or ("wer" if speech and self.measures else "loss")
        if measure == ("exact_match" if speech else "wer"):
            allowed = "loss or wer" if speech else "loss or exact_match"
            raise SettingsError(f"measure = {measure!r} does not go with {kind}; choose {allowed}")
        dtype = DEVICE_DTYPES[device] if self.dtype == "auto" else self.dtype
        if self.augment is not None and not speech:
            raise SettingsError(f"augment = {self.augment!r:.80} is for recordings, and does not go with {kind}")
        if self.strength < 1 and (self.method == "dora" or self.from_adapter is not None):
            other = "method = 'dora'" if self.method == "dora" else f"from_adapter = {self.from_adapter!r:.80}"
            raise SettingsError(f"strength = {self.strength:g} does not go with {other}; leave one of them out")
        if dtype == "float16" and device == "cpu":
            raise SettingsError("dtype = 'float16' needs a GPU; on a CPU choose bfloat16 or float32")
        return replace(
            self,
            alpha=2.0 * self.rank if self.alpha is None else self.alpha,
            batch_tokens=self.batch_tokens or (4096 if speech else 2048),
            learning_rate=self.learning_rate or (5e-4 if speech else 1e-3),
            measure=measure,
            dtype=dtype,
            device=device,
        )

    def variables(self) -> dict[str, Any]:
        """`template_variables` by name."""
        return _object(self.template_variables or "{}")

    def unmeasured(self) -> "Settings":
        """The settings where no example can be held back. Raises SettingsError where something was to be measured."""
        return replace(self, eval_fraction=0.0, measure="loss" if self.measure == "wer" else self.measure)

    @property
    def measures(self) -> bool:
        """Whether there is a split to measure on."""
        return self.eval_data is not None or self.eval_fraction > 0

    def to_json(self) -> dict[str, Any]:
        """Every option by its name, as JSON values; `from_values` takes it back."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def from_values(values: Mapping[str, Any], origin: str, over: Mapping[str, Any] | None = None) -> Settings:
    """Settings from `values` by name, of a config file or settings.json, and over them those of the command line.
    null is "not chosen". Raises SettingsError naming `origin` and the key that is unknown or cannot have its value."""
    known = [one.name for one in fields(Settings)]
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise SettingsError(f"{origin}: no option {key!r}; {hint}")
        try:
            _check(key, value)
        except SettingsError as error:
            raise SettingsError(f"{origin}: {error}") from None
    given = {key: _number(key, value) for key, value in values.items() if value is not None}
    return Settings(**{**given, **{key: value for key, value in (over or {}).items() if value is not None}})


def read_config(path: Path) -> dict[str, Any]:
    """The options in a TOML file, or in the settings.json of an earlier run; paths in it are relative to it.

    Raises SettingsError where it is neither; which options exist is for `from_values` to say.
    """
    try:
        data = path.read_bytes()[: MAX_CONFIG_BYTES + 1]
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise SettingsError(f"{path} has more than {MAX_CONFIG_BYTES} bytes; a config is a few lines of TOML")
    try:
        values = json.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise SettingsError(f"{path} is not {kind}: {error}") from None
    values = values.get("settings", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds a {type(values).__name__}; expected options by name")
    for key in PATHS:
        if isinstance(values.get(key), str):
            values[key] = str(path.parent / Path(values[key]).expanduser())
    return values


def options() -> dict[str, tuple[type, Any, Option]]:
    """Name -> type, default and row, in the order of the table."""
    return {one.name: (_plain_type(one.type), one.default, one.metadata["option"]) for one in fields(Settings)}


def _plain_type(annotation: Any) -> type:
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    plain: type = annotation
    return plain


def _check(name: str, value: Any) -> None:
    """Raises SettingsError where option `name` cannot be `value`. None is fine: it is "not chosen"."""
    plain, default, option = options()[name]
    if value is None and default is None:
        return
    fits = isinstance(value, int | float) if plain is float else isinstance(value, plain)
    if not fits or (isinstance(value, bool) and plain is not bool):
        wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[plain]
        raise SettingsError(f"{name} = {value!r:.80}; {wanted} is needed")
    if option.choices and value not in option.choices:
        raise SettingsError(f"{name} = {value!r:.80}; choose {', '.join(option.choices)}")
    if option.check is not None:
        try:
            option.check(value)
        except InputError as error:
            raise SettingsError(str(error)) from None
    if plain in (int, float) and not (_above(value, option) and value <= option.high and math.isfinite(value)):
        raise SettingsError(f"{name} = {value}; {_range(option)} is allowed")


def _above(value: float, option: Option) -> bool:
    return value > option.low if option.above else value >= option.low


def _range(option: Option) -> str:
    low = f"{'more than' if option.above else 'at least'} {option.low:g}"
    high = f"up to {option.high:g}" if option.high < math.inf else ""
    return " and ".join(part for part in (low if option.low > -math.inf else "", high) if part)


def _number(name: str, value: Any) -> Any:
    return float(value) if options()[name][0] is float else value
