"""Adapters for the random Whisper: as PEFT names them, as the file a bundle takes, and the bundle they are for."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from random_whisper import FFN, WIDTH, random_checkpoint
from safetensors.numpy import save_file

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.onnx.speech_adapter import write_speech_adapter
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources import Checkpoint
from sottovoce_compiler.sources.peft import open_adapter
from sottovoce_compiler.speech_pipeline import lower, manifest_fields
from sottovoce_targets import load_target

DIGEST = "a" * 64
# Parts of one piece together and apart, both sides, every kind of matrix.
MODULES: Mapping[str, tuple[int, int]] = {
    "model.encoder.layers.0.self_attn.q_proj": (WIDTH, WIDTH),
    "model.encoder.layers.0.self_attn.v_proj": (WIDTH, WIDTH),
    "model.encoder.layers.1.fc1": (FFN, WIDTH),
    "model.encoder.layers.1.fc2": (WIDTH, FFN),
    "model.decoder.layers.0.self_attn.k_proj": (WIDTH, WIDTH),
    "model.decoder.layers.0.self_attn.out_proj": (WIDTH, WIDTH),
    "model.decoder.layers.1.encoder_attn.q_proj": (WIDTH, WIDTH),
    "model.decoder.layers.1.encoder_attn.k_proj": (WIDTH, WIDTH),
    "model.decoder.layers.1.encoder_attn.v_proj": (WIDTH, WIDTH),
    "model.decoder.layers.1.fc1": (FFN, WIDTH),
}


def checkpoint() -> Checkpoint:
    return replace(random_checkpoint(), sha256={"model.safetensors": DIGEST})


def lora_folder(
    folder: Path, modules: Mapping[str, tuple[int, int]] = MODULES, seed: int = 3, spread: float = 0.2
) -> Path:
    """A random adapter of rank 2 as PEFT saves it."""
    random = np.random.default_rng(seed)
    tensors = {}
    for module, (rows, columns) in modules.items():
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = random.normal(0, spread, (2, columns)).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = random.normal(0, spread, (rows, 2)).astype(np.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    return folder


def adapter_file(folder: Path, name: str = "lora", precision: str = "fp32", **made: Any) -> Path:
    """folder / NAME.gguf, of folder / NAME as `lora_folder` makes it."""
    adapter = open_adapter(lora_folder(folder / name, **made))
    path = folder / f"{name}.gguf"
    write_speech_adapter(checkpoint(), adapter, path, precision)
    return path


def fp32_bundle(source: Checkpoint, path: Path) -> Path:
    """A bundle of `source` without voice activity, in float32."""
    target, spec = load_target("linux-x86-64"), whisper_spec(source)
    with patch("sottovoce_compiler.speech_pipeline.fetch_component", return_value=path):
        request = Request(source.spec, target, path, {}, "fp32")
        lowered = lower(request, source, spec, path.parent, lambda done: None)
    files = {name: content for name, content in lowered.files.items() if name != "vad.onnx"}
    return write_bundle(path, manifest_fields(request, source, spec, lowered), files)
