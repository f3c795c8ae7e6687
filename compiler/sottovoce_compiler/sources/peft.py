"""A LoRA adapter as PEFT saves it: adapter_config.json beside adapter_model.safetensors.

Knows the two files, and how PEFT scales a pair by its config. What would make an adapter compute something else than
W + scale * B A, or that with its rows brought to trained lengths (DoRA), is refused by its key. Does not know which
model it is for, or what becomes of it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.files import digests, licence_in_readme, read_json_object
from sottovoce_compiler.sources.folder import FileTensors, open_safetensors

Float = NDArray[np.float32]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK, MAX_ALPHA = 1 << 16, 1e5
MERGE_IT = "merge it into its base with peft (merge_and_unload) and compile the result"
# A half of a pair; what peft saves beside the pair of a head, the base's own weight; the lengths of DoRA's rows.
_PART = re.compile(
    r"base_model\.model\.(?P<module>[\w.]+)\.((?P<part>lora_A|lora_B|base_layer)\.weight|(?P<vector>lora_magnitude_vector))",
    re.ASCII,
)
_MAGNITUDE = "lora_magnitude_vector"
_PLAIN_PATTERN = re.compile(r"\^?[\w.]+")
_NO_NAMES = ("", "None")  # what peft writes where it does not know the base
# The others (pissa, olora, corda, loftq, ...) change the base too, so that the pairs alone are not the adapter.
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
_READ = frozenset(
    {"peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "target_modules"}
    | {"bias", "init_lora_weights", "base_model_name_or_path"}
)
# How it was trained and is loaded again: nothing that changes what it computes once it is trained.
_SILENT = frozenset(
    {"task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "exclude_modules", "lora_dropout"}
    | {"layers_to_transform", "layers_pattern", "megatron_core", "eva_config", "qalora_group_size", "runtime_config"}
    | {"ensure_weight_tying"}
)


@dataclass(frozen=True)
class LoraPair:
    """One matrix's change: W (rows, columns) of `module` becomes W + scale * B A, A (rank, columns), B (rows, rank);
    where it is `dora`, each row of that is then brought to its length in `load_magnitude` (arXiv 2402.09353, eq. 5)."""

    module: str  # as transformers names it in the model that was trained
    shape: tuple[int, int]
    rank: int
    scale: float
    tensors: FileTensors
    has_base: bool = False  # whether the base's own weight was saved with it
    dora: bool = False

    def load(self) -> tuple[Float, Float]:
        """A and B in float32. A `SourceError` names one that is not of finite numbers."""
        return self._part("lora_A"), self._part("lora_B")

    def load_base(self) -> Float:
        """The base's own weight (rows, columns) in float32, where `has_base`."""
        return self._part("base_layer")

    def load_magnitude(self) -> Float:
        """The length (rows,) in float32 that each row of the changed weight has, where it is `dora`."""
        return self._part(_MAGNITUDE)

    def added_to(self, weight: Float) -> Float:
        """What `weight` (rows, columns) float32 becomes, as a fresh array."""
        a, b = self.load()
        changed = weight + np.float32(self.scale) * (b @ a)
        if self.dora:
            changed *= (self.load_magnitude() / np.linalg.norm(changed, axis=1))[:, None]
        return changed

    def _part(self, part: str) -> Float:
        name = tensor_name(self.module, part)
        array = self.tensors.load(name)
        values = array.astype(np.float32) if array.dtype.kind == "f" else None
        if values is None or not np.isfinite(values).all():
            raise SourceError(f"{WEIGHTS}: {name} does not hold finite numbers; save the adapter anew")
        return values


@dataclass(frozen=True)
class LoraAdapter:
    """A trained adapter. `base` is what its config says it was trained on; `sha256` that of its files, by name."""

    folder: Path
    name: str
    base: str | None
    pairs: tuple[LoraPair, ...]  # sorted by module
    licence: str | None
    sha256: Mapping[str, str]

    @property
    def dora(self) -> bool:
        """Whether it needs more of an engine than adding B A x: the base's weights."""
        return any(pair.dora for pair in self.pairs)


def open_adapter(folder: Path) -> LoraAdapter:
    """The adapter in `folder`. A `SourceError` names what is missing, damaged or not supported, or says that it was not
    trained: that it would change nothing."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise SourceError(f"no adapter in {folder}: there is no {name}; give the folder that peft saved it to")
    config = _Config(read_json_object(folder / CONFIG), folder / CONFIG)
    config.check()
    pairs = _pairs(config, open_safetensors(folder / WEIGHTS), folder / WEIGHTS)
    if not any([_changes(pair) for pair in pairs]):  # all of them are read: each is to be sound
        raise SourceError(f"{folder}: this adapter changes nothing (its B is zero everywhere); it was not trained")
    base = config.values.get("base_model_name_or_path")
    return LoraAdapter(
        folder,
        folder.resolve().name,
        base if isinstance(base, str) and base not in _NO_NAMES else None,
        pairs,
        licence_in_readme(folder),
        digests([folder / CONFIG, folder / WEIGHTS]),
    )


@dataclass(frozen=True)
class _Config:
    """adapter_config.json, which nobody has checked."""

    values: Mapping[str, Any]
    file: Path

    def refuse(self, key: str, why: str) -> SourceError:
        return SourceError(f"{self.file}: {key} = {self.values.get(key)!r:.100}; {why}")

    def check(self) -> None:
        if self.values.get("peft_type") != "LORA":
            raise self.refuse("peft_type", "only LORA is supported")
        if self.values.get("bias", "none") != "none":
            raise self.refuse("bias", f"only 'none' is supported: {MERGE_IT}")
        start = self.values.get("init_lora_weights", True)
        if not any(start is plain or (isinstance(start, str) and start == plain) for plain in _PLAIN_STARTS):
            raise self.refuse("init_lora_weights", f"that changes the base too: {MERGE_IT}")
        for key in sorted(self.values.keys() - _READ - _SILENT):
            if self.values[key]:
                raise self.refuse(key, f"that is not supported: {MERGE_IT}")

    def rank(self, module: str) -> int:
        key, found = self._for(module, "rank_pattern", "r")
        if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= MAX_RANK:
            raise self.refuse(key, f"ranks are whole numbers from 1 to {MAX_RANK}")
        return found

    def scale(self, module: str) -> float:
        """alpha / r, or alpha / sqrt(r) where it is rank-stabilized (arxiv.org/abs/2312.03732)."""
        key, alpha = self._for(module, "alpha_pattern", "lora_alpha")
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < abs(alpha) <= MAX_ALPHA:
            raise self.refuse(key, f"a number other than 0, up to {MAX_ALPHA:g}, is needed")
        stabilized = self.values.get("use_rslora") or False
        if not isinstance(stabilized, bool):
            raise self.refuse("use_rslora", "true or false is needed")
        rank = self.rank(module)
        return float(alpha) / (math.sqrt(rank) if stabilized else rank)

    def dora(self) -> bool:
        found = self.values.get("use_dora") or False
        if not isinstance(found, bool):
            raise self.refuse("use_dora", "true or false is needed")
        return found

    def targets(self, module: str) -> bool:
        """Whether PEFT would look at `module`. A regular expression is not run: the file's author may have written one
        that never ends."""
        named = self.values.get("target_modules")
        if not isinstance(named, list):
            return True
        return any(isinstance(one, str) and f".{module}".endswith(f".{one}") for one in named)

    def _for(self, module: str, pattern_key: str, key: str) -> tuple[str, Any]:
        """The key that decides, and its value: of the first pattern that names the module, or part of its end."""
        patterns = self.values.get(pattern_key) or {}
        if not isinstance(patterns, Mapping) or not all(map(_PLAIN_PATTERN.fullmatch, patterns)):
            raise self.refuse(pattern_key, "an object of plain module names is needed; regular expressions are not run")
        for pattern, value in patterns.items():
            if module == pattern.removeprefix("^") or f".{module}".endswith(f".{pattern}"):
                return pattern_key, value
        return key, self.values.get(key)


def _pairs(config: _Config, tensors: FileTensors, file: Path) -> tuple[LoraPair, ...]:
    modules: dict[str, set[str]] = {}
    for name in tensors.names():
        if (named := _PART.fullmatch(name)) is None:
            raise SourceError(f"{file} has {name!r:.200}, which is no half of a LoRA pair for a matrix; {MERGE_IT}")
        modules.setdefault(named["module"], set()).add(named["part"] or named["vector"])
    if not modules:
        raise SourceError(f"{file} has no tensors; save the adapter anew")
    needed = {"lora_A", "lora_B", *({_MAGNITUDE} if config.dora() else ())}
    for module, parts in modules.items():
        if missing := needed - parts:
            raise SourceError(f"{file} has no {min(missing)} of {module}; save the adapter anew")
        if _MAGNITUDE in parts - needed:
            raise SourceError(f"{file} has {_MAGNITUDE} of {module}, but {CONFIG} does not say use_dora; {MERGE_IT}")
        if not config.targets(module):
            raise SourceError(f"{file} changes {module}, which target_modules of {CONFIG} does not name")
    return tuple(_pair(config, tensors, module, "base_layer" in modules[module], file) for module in sorted(modules))


def _pair(config: _Config, tensors: FileTensors, module: str, has_base: bool, file: Path) -> LoraPair:
    a, b = (tensors.shape(tensor_name(module, part)) for part in ("lora_A", "lora_B"))
    rank = config.rank(module)
    if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
        raise SourceError(
            f"{file}: {module} has A {a} and B {b}; by {CONFIG} its rank is {rank}, and both are matrices"
        )
    if config.dora() and (found := tensors.shape(tensor_name(module, _MAGNITUDE))) != (b[0],):
        raise SourceError(f"{file}: {module} has {_MAGNITUDE} {found} and B {b}; one value a row is needed")
    return LoraPair(module, (b[0], a[1]), rank, config.scale(module), tensors, has_base, config.dora())


def tensor_name(module: str, part: str) -> str:
    """How PEFT saves a part of a module's adapter: "lora_A", "lora_B", "base_layer" or "lora_magnitude_vector"."""
    return f"base_model.model.{module}.{part}" + ("" if part == _MAGNITUDE else ".weight")


def _changes(pair: LoraPair) -> bool:
    a, b = pair.load()
    if pair.dora:
        pair.load_magnitude()
    return bool(a.any() and b.any())
