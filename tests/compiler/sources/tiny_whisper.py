"""The random Whisper's sizes and its CTranslate2 files, written apart from the code under test."""

import struct
from collections.abc import Mapping

import numpy as np

LAYERS = {"encoder": 2, "decoder": 3}
D, FFN, HEADS, MEL_BINS, SOURCE_POSITIONS, TARGET_POSITIONS = 32, 48, 4, 8, 20, 12
LANGUAGES, TASKS = ["<|en|>", "<|zh|>"], ["<|translate|>", "<|transcribe|>"]
CONTROLS = ["<|startoflm|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>"]
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", *LANGUAGES, *TASKS, *CONTROLS]
TIMESTAMPS = [f"<|{step / 50:.2f}|>" for step in range(1501)]
VOCAB_SIZE = 256 + len(SPECIAL) + len(TIMESTAMPS)
TYPE_IDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}

Weights = dict[str, np.ndarray]


def _quantize(name: str, array: np.ndarray, kind: str) -> dict[str, tuple[str, np.ndarray]]:
    """The variables that CTranslate2's converter makes of one array for `--quantization kind`."""
    weights, _, rest = kind.partition("_")
    if weights in ("int8", "int16") and name.endswith("/weight"):
        if weights == "int16":
            scale = np.array(2**10 / np.abs(array).max(), np.float32)
            return {
                name: ("int16", np.rint(array * scale).astype("<i2")),
                f"{name}_scale": ("float32", scale),
            }
        rows = array.reshape(len(array), -1)
        scale = (127 / np.abs(rows).max(axis=1)).astype(np.float32)
        values = np.rint(rows * scale[:, None]).astype(np.int8).reshape(array.shape)
        return {name: ("int8", values), f"{name}_scale": ("float32", scale)}
    kind = rest or ("float32" if weights.startswith("int") else weights)
    if kind == "bfloat16":
        return {name: ("bfloat16", (array.astype("<f4").view("<u4") >> 16).astype("<u2"))}
    return {name: (kind, array.astype(kind))}


def ctranslate2_variables(weights: Mapping[str, np.ndarray], kind: str) -> dict[str, tuple[str, np.ndarray]]:
    """CTranslate2's variables for a Whisper state dict: names, fused projections, scalars."""

    def linear(name: str, *sources: str) -> None:
        floats[f"{name}/weight"] = np.concatenate([weights[f"{source}.weight"] for source in sources])
        biases = [weights.get(f"{source}.bias", np.zeros(D, np.float32)) for source in sources]
        floats[f"{name}/bias"] = np.concatenate(biases)

    def norm(name: str, source: str) -> None:
        floats[f"{name}/gamma"], floats[f"{name}/beta"] = (
            weights[f"{source}.weight"],
            weights[f"{source}.bias"],
        )

    floats: dict[str, np.ndarray] = {"decoder/embeddings/weight": weights["model.decoder.embed_tokens.weight"]}
    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"model.encoder.{conv}")
    for side, layers in LAYERS.items():
        floats[f"{side}/position_encodings/encodings"] = weights[f"model.{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for index in range(layers):
            ours, theirs = f"{side}/layer_{index}", f"model.{side}.layers.{index}"
            own = f"{theirs}.self_attn"
            norm(f"{ours}/self_attention/layer_norm", f"{theirs}.self_attn_layer_norm")
            linear(f"{ours}/self_attention/linear_0", f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj")
            linear(f"{ours}/self_attention/linear_1", f"{own}.out_proj")
            norm(f"{ours}/ffn/layer_norm", f"{theirs}.final_layer_norm")
            linear(f"{ours}/ffn/linear_0", f"{theirs}.fc1")
            linear(f"{ours}/ffn/linear_1", f"{theirs}.fc2")
            if side == "decoder":
                cross = f"{theirs}.encoder_attn"
                norm(f"{ours}/attention/layer_norm", f"{theirs}.encoder_attn_layer_norm")
                linear(f"{ours}/attention/linear_0", f"{cross}.q_proj")
                linear(f"{ours}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
                linear(f"{ours}/attention/linear_2", f"{cross}.out_proj")
    variables: dict[str, tuple[str, np.ndarray]] = {}
    for name, array in floats.items():
        variables |= _quantize(name, array, kind)
    variables["decoder/activation"] = ("int8", np.array(3, np.int8))
    variables["decoder/scale_embeddings"] = ("int8", np.array(0, np.int8))
    for side in LAYERS:
        variables[f"{side}/num_heads"] = ("int16", np.array(HEADS, np.int16))
    return variables


def model_bin(
    variables: Mapping[str, tuple[str, np.ndarray]],
    aliases: Mapping[str, str],
    version: int = 6,
    specification: str = "WhisperSpec",
) -> bytes:
    """The bytes of a model.bin, written from the format's description."""

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    parts = [struct.pack("<I", version), string(specification), struct.pack("<II", 3, len(variables))]
    for name, (kind, array) in sorted(variables.items()):
        array = np.asarray(array)
        parts += [string(name), struct.pack("<B", array.ndim), struct.pack(f"<{array.ndim}I", *array.shape)]
        parts += [struct.pack("<BI", TYPE_IDS[kind], array.nbytes), array.tobytes()]
    parts.append(struct.pack("<I", len(aliases)))
    parts += [string(alias) + string(name) for alias, name in aliases.items()]
    return b"".join(parts)
