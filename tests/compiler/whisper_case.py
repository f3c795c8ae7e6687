"""Random Whispers of any shape as checkpoints in memory, and the sessions of their lowered graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.lowerings.onnx.graph import WEIGHTS_NAME, WeightFile
from sottovoce_compiler.lowerings.onnx.recipe import Recipe
from sottovoce_compiler.lowerings.onnx.whisper import WhisperLowering
from sottovoce_compiler.sources import Array, Checkpoint

ENDS = ("<|endoftext|>", "<|startoftranscript|>")
LANGUAGES = ("<|en|>", "<|de|>", "<|ja|>")
CONTROLS = ("<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")
VOCABULARY: tuple[bytes | str, ...] = (*(bytes([byte]) for byte in range(256)), *ENDS, *LANGUAGES, *CONTROLS)
VOCAB_SIZE = len(VOCABULARY) + 101
CONFIG: Mapping[str, Any] = {
    "model_type": "whisper",
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "max_target_positions": 64,
    "vocab_size": VOCAB_SIZE,
    "pad_token_id": 256,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "decoder_start_token_id": 257,
}


@dataclass(frozen=True)
class Memory:
    """Tensors in memory."""

    arrays: Mapping[str, Array]

    def names(self) -> list[str]:
        return sorted(self.arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def load(self, name: str) -> Array:
        return self.arrays[name].copy()


def random_model(config: Mapping[str, Any] = CONFIG, seed: int = 0) -> Any:
    """transformers' own model with random weights, biases and norms included, and the encoder's sinusoids."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(WhisperConfig(**config, init_std=0.08, attn_implementation="eager"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") or "layer_norm" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def checkpoint_of(model: Any, config: Mapping[str, Any] = CONFIG, **changes: Any) -> Checkpoint:
    arrays = {name: t.detach().numpy() for name, t in model.state_dict().items() if name != "proj_out.weight"}
    fields: dict[str, Any] = {
        "spec": "random",
        "name": "random",
        "config": config,
        "generation_config": {"is_multilingual": True},
        "tensors": Memory(arrays),
        "vocabulary": VOCABULARY,
        "tokenizer_file": None,
        "licence": None,
        "revision": None,
        "sha256": {"model.safetensors": "0" * 64},
    }
    return Checkpoint(**{**fields, **changes})


@dataclass(frozen=True)
class Lowered:
    """Both graphs in onnxruntime."""

    spec: WhisperSpec
    encoder: Any
    decoder: Any
    weights: Path

    def encode(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        names = [output.name for output in self.encoder.get_outputs()]
        return dict(zip(names, self.encoder.run(None, {"audio": samples[None].astype(np.float32)}), strict=True))

    def decode(
        self,
        cross: Mapping[str, np.ndarray],
        tokens: Sequence[Sequence[int]],
        past: Mapping[str, np.ndarray] | None = None,
        done: int = 0,
    ) -> dict[str, np.ndarray]:
        """All outputs, with logits for every token."""
        ids = np.array(tokens, np.int64)
        rows, length = ids.shape
        spec = self.spec
        shape = (rows, spec.decoder_heads, spec.n_text_ctx, spec.decoder_head_width)
        kinds = [f"{kind}_{i}" for i in range(spec.decoder_layers) for kind in ("key", "value")]
        inputs = {
            "tokens": ids,
            "total_length": np.full(rows, done + length, np.int32),
            "logit_positions": np.arange(length),
            **{name: cross[name] for name in ("key_bias", *(f"cross_{kind}" for kind in kinds))},
            **{f"past_{k}": past[f"present_{k}"] if past else np.zeros(shape, np.float32) for k in kinds},
        }
        names = [output.name for output in self.decoder.get_outputs()]
        return dict(zip(names, self.decoder.run(None, inputs), strict=True))


def lower(checkpoint: Checkpoint, recipe: Recipe, folder: Path, spec: WhisperSpec | None = None) -> Lowered:
    """The graphs of a checkpoint, written to `folder` and opened."""
    spec = spec or whisper_spec(checkpoint)
    write_graphs(checkpoint, recipe, folder, spec)
    return Lowered(spec, session(folder / "encoder.onnx"), session(folder / "decoder.onnx"), folder / WEIGHTS_NAME)


def write_graphs(checkpoint: Checkpoint, recipe: Recipe, folder: Path, spec: WhisperSpec | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with WeightFile(folder / WEIGHTS_NAME) as weights:
        lowering = WhisperLowering(
            spec or whisper_spec(checkpoint),
            lambda name: checkpoint.tensors.load(name).astype(np.float32),
            recipe,
            weights,
        )
        (folder / "encoder.onnx").write_bytes(lowering.encoder({"source": "test"}))
        (folder / "decoder.onnx").write_bytes(lowering.decoder({"source": "test"}))


def session(path: Path | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # as the runtime has it
    content = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def sweep(seconds: float, seed: int = 0) -> np.ndarray:
    """A rising tone with a little noise: loud in some bands at a time, as speech is. (n,) float32 at 16 kHz."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) * (0.6 + 0.4 * np.sin(9 * time))
    return (tone + np.random.default_rng(seed).normal(0, 0.01, time.size)).astype(np.float32)


def reference_run(model: Any, samples: np.ndarray, tokens: Sequence[Sequence[int]]) -> Any:
    """transformers' extractor, encoder and decoder; has `.logits`, `.cross_attentions` and `.features`."""
    import torch
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    with torch.inference_mode():
        features = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
        ids = torch.tensor(tokens)
        found = model(features.expand(len(ids), -1, -1), decoder_input_ids=ids, output_attentions=True)
    found.features = features
    return found
