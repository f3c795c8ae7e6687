"""An adapter on disk in PEFT's format, with a card that says what it was made of; and one of PEFT's on a model again.

Knows `AdaptedLinear`s by the names of their modules. Doesn't know what model they are of, or how they were trained.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sottovoce.errors import InputError
from sottovoce_compiler.adapter import bare_name
from sottovoce_compiler.finetune.model.adapted import AdaptedLinear, Lora
from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.peft import CONFIG, WEIGHTS, LoraAdapter, LoraPair, tensor_name
from sottovoce_compiler.staging import staged_folder

README, SETTINGS = "README.md", "settings.json"
OURS = frozenset({CONFIG, WEIGHTS, README, SETTINGS})

# AdaptedLinear's parameter -> the last part of the name under which PEFT saves it.
_PARTS = {"lora_a": "lora_A", "lora_b": "lora_B", "magnitude": "lora_magnitude_vector"}


@dataclass(frozen=True, slots=True)
class Card:
    """What an adapter's folder says of it. `base` is the model's name as others know it, `task_type` PEFT's word for
    what it does (None: PEFT adds nothing of its own), `data` the SHA-256 of what was learned, by file, `measured` what
    came of it, by name. `licence` is the adapter's own, where somebody chose one."""

    base: str
    base_licence: str | None = None
    base_revision: str | None = None
    task_type: str | None = "CAUSAL_LM"
    data: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, str | float] = field(default_factory=dict)
    licence: str | None = None


def check_folder(folder: Path, others: Sequence[str] = ()) -> Path:
    """The absolute path of a folder that an adapter may be written to: a new or empty one, or an adapter's. `others`
    are names of files that are written beside ours.

    Raises InputError for a folder of something else, and for one with files that replacing it would lose.
    """
    real = folder.expanduser().resolve()
    if not real.parent.is_dir():
        raise InputError(f"{folder} cannot be written: there is no folder {real.parent}; create it first")
    if not real.exists():
        return real
    if not real.is_dir():
        raise InputError(f"{folder} exists and is not a folder; choose another name")
    present = {item.name for item in real.iterdir()}
    if present and CONFIG not in present:
        raise InputError(f"{folder} is a folder and no adapter's; choose another name, or empty it first")
    if strangers := present - OURS - set(others):
        raise InputError(
            f"{folder} holds {min(strangers)!r}, which is not part of the adapter there; move it away first"
        )
    return real


def save_adapter(
    folder: Path,
    layers: Mapping[str, AdaptedLinear],
    card: Card,
    settings: Mapping[str, Any] | None = None,
    others: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the adapters on `layers` to `folder`, whole or not at all, in the place of an adapter that is there.

    `layers` are all that could have one, so that those that have none are left alone where it is loaded. `settings`
    goes to settings.json, `others` are more files by name. Raises InputError where the folder is another's, or where no
    layer has an adapter.
    """
    others = others or {}
    real = check_folder(folder, tuple(others))
    with staged_folder(real) as staged:
        write_adapter(staged, layers, card)
        if settings is not None:
            _write_json(staged / SETTINGS, settings)
        for name, content in others.items():
            (staged / name).write_bytes(content)
    return real


def write_adapter(folder: Path, layers: Mapping[str, AdaptedLinear], card: Card) -> None:
    """PEFT's two files and the card, into a folder that is there. The same adapter gives the same bytes."""
    from safetensors.torch import save_file

    adapted = {name: layer for name, layer in layers.items() if layer.lora is not None}
    if not adapted:
        raise InputError("no layer has an adapter, so there is nothing to save")
    tensors = {}
    for module, layer in adapted.items():
        for part, saved in _PARTS.items():
            if (value := getattr(layer, part)) is not None:
                tensors[tensor_name(module, saved)] = value.detach().float().cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = peft_config(layers, card)
    _write_json(folder / CONFIG, config)
    (folder / README).write_text(_readme(config, card), encoding="utf-8")


def peft_config(layers: Mapping[str, AdaptedLinear], card: Card) -> dict[str, Any]:
    """adapter_config.json: what differs from the most common rank and alpha is under the module's name."""
    kinds = {name: layer.lora for name, layer in layers.items() if layer.lora is not None}
    most = Counter(kinds.values()).most_common(1)[0][0]
    for name, lora in kinds.items():
        if (lora.dora, lora.rank_stabilized) != (most.dora, most.rank_stabilized):
            raise InputError(f"{name} has another kind of adapter than the others; one folder holds one kind")
    return {
        "alpha_pattern": {name: _alpha(lora) for name, lora in kinds.items() if _alpha(lora) != _alpha(most)},
        "base_model_name_or_path": card.base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _alpha(most),
        "lora_dropout": most.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": most.rank,
        "rank_pattern": {name: lora.rank for name, lora in kinds.items() if lora.rank != most.rank},
        "revision": card.base_revision,
        "target_modules": _targets(layers, list(kinds)),
        "task_type": card.task_type,
        "use_dora": most.dora,
        "use_rslora": most.rank_stabilized,
    }


def _alpha(lora: Lora) -> float:
    """What PEFT is told, which knows of no strength."""
    return lora.strength * lora.alpha


def load_adapter(layers: Mapping[str, AdaptedLinear], adapter: LoraAdapter, dropout: float = 0.0) -> None:
    """Attach `adapter` to those of `layers` that it names, to be trained on; the others are left without one.

    Raises SourceError naming a module that is none of `layers`, or whose shape differs: then nothing was attached.
    """
    by_name = {bare_name(name): layer for name, layer in layers.items()}
    found: list[tuple[AdaptedLinear, LoraPair]] = []
    for pair in adapter.pairs:
        layer = by_name.get(bare_name(pair.module))
        if layer is None:
            raise SourceError(f"{adapter.folder} changes {pair.module}, which cannot be trained here; leave it out")
        if pair.shape != (layer.rows, layer.columns):
            raise SourceError(
                f"{adapter.folder} changes {pair.module} of {pair.shape}; here it is {(layer.rows, layer.columns)}: "
                "it was made for another model"
            )
        found.append((layer, pair))
    for layer in layers.values():
        layer.detach()
    for layer, pair in found:
        _attach(layer, pair, dropout)


def _attach(layer: AdaptedLinear, pair: LoraPair, dropout: float) -> None:
    a, b = pair.load()
    # What the pair counts is its scale, however its config came by that.
    layer.attach(Lora(pair.rank, pair.scale * pair.rank, dora=pair.dora, dropout=dropout))
    values = {"lora_a": a, "lora_b": b, **({"magnitude": pair.load_magnitude()} if pair.dora else {})}
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer, name).copy_(torch.from_numpy(value))


def _targets(layers: Mapping[str, AdaptedLinear], adapted: Sequence[str]) -> list[str]:
    """The last parts of the modules' names, as PEFT's users write them, unless those would take in a layer that has no
    adapter; then the whole names."""
    suffixes = sorted({name.rpartition(".")[2] for name in adapted})
    meant = [name for name in layers if name.rpartition(".")[2] in suffixes]
    return suffixes if len(meant) == len(adapted) else sorted(adapted)


def _readme(config: Mapping[str, Any], card: Card) -> str:
    front: dict[str, Any] = {"base_model": card.base, "library_name": "peft", "tags": ["lora", "sottovoce"]}
    if card.licence:
        front["license"] = card.licence
    method = "DoRA" if config["use_dora"] else "rsLoRA" if config["use_rslora"] else "LoRA"
    rows = [
        ("base model", f"{card.base}{f' at {card.base_revision}' if card.base_revision else ''}"),
        ("its licence", card.base_licence or "not known"),
        ("method", f"{method}, rank {config['r']}, alpha {config['lora_alpha']:g}"),
        ("modules", ", ".join(config["target_modules"]) if len(config["target_modules"]) < 20 else "see the config"),
        *((f"data: {name}", f"SHA-256 {digest}") for name, digest in card.data.items()),
        *((name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in card.measured.items()),
    ]
    return "\n".join(
        [
            "---",
            # JSON is YAML, and quotes what needs it.
            *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()),
            "---",
            "",
            f"# An adapter for {card.base}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows),
            "",
            "PEFT loads it (`PeftModel.from_pretrained`), and `sottovoce compile SOURCE --adapter FOLDER` makes a",
            "bundle of it and its base.",
            "",
        ]
    )


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
