"""Turns one resolved checkpoint into the files that each peer reads, in a folder of the caller's.

Knows the peers' file formats; what they are measured on, it does not know. A finished format is reused: a
folder or file takes its final name only when it is complete.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers import SYSTEMS, Artifacts
from peers.ggml import Sizes, write_ggml

from sottovoce_compiler.sources import Checkpoint, resolve

SPECIAL = {
    "decoder_start_token_id": "<|startoftranscript|>",
    "eos_token_id": "<|endoftext|>",
    "bos_token_id": "<|endoftext|>",
    "pad_token_id": "<|endoftext|>",
    "no_timestamps_token_id": "<|notimestamps|>",
    "prev_sot_token_id": "<|startofprev|>",
}
"""Fields of a generation config that name a special token."""


FEATURES: Mapping[str, Any] = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "sampling_rate": 16_000,
    "n_fft": 400,
    "hop_length": 160,
    "chunk_length": 30,
    "padding_value": 0.0,
    "return_attention_mask": False,
}
"""What every Whisper's feature extractor shares; the number of mels is the model's."""

MULTILINGUAL_VOCABULARY = 51865  # ids of the smallest multilingual Whisper; an English-only one has 51864


@dataclass(frozen=True, slots=True)
class Model:
    """One model as all systems read it."""

    spec: str
    multilingual: bool
    artifacts: Artifacts


def source_and_bundle(text: str) -> tuple[str, Path | None]:
    """SOURCE=BUNDLE taken apart, or SOURCE and None. The == of a `pypi:` source separates nothing."""
    source, _, bundle = text.rpartition("=")
    return (source, Path(bundle)) if source and not source.endswith("=") else (text, None)


def prepare(spec: str, systems: Sequence[str], folder: Path, bundle: Path | None) -> Model:
    """Files of the model `spec` for `systems`, made under `folder` where they are not there yet.

    `bundle` is ours, already compiled. Errors are those of the compiler's `resolve`.
    """
    checkpoint = resolve(spec)
    wanted = {SYSTEMS[name].format for name in systems}
    formats: dict[str, Path] = {"bundle": bundle} if bundle is not None else {}
    base = folder / spec.replace("/", "--").replace(":", "-")
    if wanted & {"hf", "ct2"}:
        formats["hf"] = _once(base / "hf", lambda at: write_hugging_face(checkpoint, at))
    if "ct2" in wanted:
        formats["ct2"] = _once(base / "ct2-int8", lambda at: write_ctranslate2(formats["hf"], at))
    if "ggml" in wanted:
        formats["ggml"] = _once(base / "ggml-q8_0.bin", lambda at: write_whisper_cpp(checkpoint, at))
    return Model(spec, is_multilingual(checkpoint), Artifacts(**formats))


def is_multilingual(checkpoint: Checkpoint) -> bool:
    """Whether the model has language tokens to choose from."""
    return bool(checkpoint.config["vocab_size"] >= MULTILINGUAL_VOCABULARY)


def _once(target: Path, make: Callable[[Path], None]) -> Path:
    """`make` the file or folder under another name and move it into position, unless it is there."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.part")
        if draft.is_dir():
            shutil.rmtree(draft)
        make(draft)
        os.replace(draft, target)
    return target


def write_hugging_face(checkpoint: Checkpoint, folder: Path) -> None:
    """A folder that `from_pretrained` takes: fp32 safetensors, configs, tokenizer, feature extractor."""
    from safetensors.numpy import save_file

    if checkpoint.tokenizer_file is None:
        raise LookupError(f"{checkpoint.spec} has no tokenizer.json, which transformers and faster-whisper need")
    folder.mkdir(parents=True)
    names = [name for name in checkpoint.tensors.names() if name != "proj_out.weight"]
    arrays = {name: np.ascontiguousarray(checkpoint.tensors.load(name), dtype=np.float32) for name in names}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**checkpoint.config, "architectures": ["WhisperForConditionalGeneration"], "dtype": "float32"}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation_config(checkpoint))
    _write_json(folder / "preprocessor_config.json", {**FEATURES, "feature_size": config["num_mel_bins"]})
    shutil.copyfile(checkpoint.tokenizer_file, folder / "tokenizer.json")
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer", **_tokenizer_specials()})


def generation_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The checkpoint's own, with what its vocabulary settles filled in where a source does not carry it."""
    specials = {token: index for index, token in enumerate(checkpoint.vocabulary) if isinstance(token, str)}
    found: dict[str, Any] = {key: specials[token] for key, token in SPECIAL.items() if token in specials}
    multilingual = is_multilingual(checkpoint)
    found |= {"is_multilingual": multilingual, "max_length": checkpoint.config["max_target_positions"]}
    found |= {"max_initial_timestamp_index": 50, "return_timestamps": False}
    if multilingual:
        first, last = specials["<|startoftranscript|>"] + 1, specials["<|translate|>"]
        found["lang_to_id"] = {token: index for token, index in specials.items() if first <= index < last}
        found["task_to_id"] = {task: specials[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return found | dict(checkpoint.generation_config)


def _tokenizer_specials() -> Mapping[str, str]:
    end = "<|endoftext|>"
    return {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": end}


def write_ctranslate2(hugging_face: Path, folder: Path) -> None:
    """CTranslate2's own converter, stored as int8: the form that loads fastest and is smallest."""
    from ctranslate2.converters import TransformersConverter

    converter = TransformersConverter(str(hugging_face), copy_files=["tokenizer.json", "preprocessor_config.json"])
    converter.convert(str(folder), quantization="int8")


def write_whisper_cpp(checkpoint: Checkpoint, file: Path) -> None:
    """A q8_0 file for whisper.cpp."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=1 + FEATURES["n_fft"] // 2,
        num_mel_filters=checkpoint.config["num_mel_bins"],
        min_frequency=0.0,
        max_frequency=FEATURES["sampling_rate"] / 2,
        sampling_rate=FEATURES["sampling_rate"],
        norm="slaney",
        mel_scale="slaney",
    )  # (201, mels)
    words = [token for token in checkpoint.vocabulary if isinstance(token, bytes)]
    sizes = Sizes.from_config(checkpoint.config)
    write_ggml(file, sizes, filters.T.astype(np.float32), words, checkpoint.tensors, "q8_0")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
