"""A random Whisper of a few kilobytes, and writers for every place that a model can come from."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from .tiny_whisper import (
    FFN,
    HEADS,
    LAYERS,
    MEL_BINS,
    SOURCE_POSITIONS,
    SPECIAL,
    TARGET_POSITIONS,
    TIMESTAMPS,
    VOCAB_SIZE,
    D,
    Weights,
    ctranslate2_variables,
    model_bin,
)


@pytest.fixture(scope="session")
def characters() -> list[str]:
    """GPT-2's stand-ins for the bytes 0 to 255, as published: printed here apart from the code under test."""
    free = iter(range(256, 512))
    prints = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    return [chr(byte) if byte in prints else chr(next(free)) for byte in range(256)]


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    """The config.json of the random Whisper."""
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "d_model": D,
        "encoder_layers": LAYERS["encoder"],
        "decoder_layers": LAYERS["decoder"],
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": FFN,
        "decoder_ffn_dim": FFN,
        "num_mel_bins": MEL_BINS,
        "max_source_positions": SOURCE_POSITIONS,
        "max_target_positions": TARGET_POSITIONS,
        "vocab_size": VOCAB_SIZE,
        "activation_function": "gelu",
        "scale_embedding": False,
        "pad_token_id": 256,
        "bos_token_id": 256,
        "eos_token_id": 256,
        "decoder_start_token_id": 257,
    }


@pytest.fixture(scope="session")
def tiny_weights(tiny_config: dict[str, Any]) -> Weights:
    """Its state dict as transformers names it, float32, without the tied proj_out.weight."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(7)
    state = WhisperForConditionalGeneration(WhisperConfig(**tiny_config)).state_dict()
    # A fresh model has zero biases, which would hide a bias that is lost or mixed up.
    return {
        name: (tensor + 0.02 * torch.randn_like(tensor)).numpy()
        for name, tensor in state.items()
        if name != "proj_out.weight"
    }


@pytest.fixture
def write_tokenizer(characters: list[str]) -> Callable[[Path], None]:
    """Writes a tokenizer.json of the 256 bytes; like Whisper's own it stops at <|notimestamps|>."""

    def write(folder: Path) -> None:
        vocab = {character: byte for byte, character in enumerate(characters)}
        added = [{"id": 256 + i, "content": token, "special": True} for i, token in enumerate(SPECIAL)]
        content = {"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": added}
        (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")

    return write


@pytest.fixture
def hf_folder(
    tmp_path: Path,
    tiny_config: dict[str, Any],
    tiny_weights: Weights,
    write_tokenizer: Callable[[Path], None],
) -> Path:
    """The random Whisper in Hugging Face's layout, as one safetensors file."""
    from safetensors.numpy import save_file

    folder = tmp_path / "tiny-hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny_config))
    (folder / "generation_config.json").write_text(json.dumps({"is_multilingual": True}))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A random model\n")
    save_file(tiny_weights, folder / "model.safetensors")
    write_tokenizer(folder)
    return folder


@pytest.fixture
def write_ct2(
    tiny_weights: Weights, characters: list[str], write_tokenizer: Callable[[Path], None]
) -> Callable[..., Path]:
    """Writes the random Whisper as CTranslate2's converter would; `kind` is its --quantization."""

    def write(folder: Path, kind: str = "float32") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
        (folder / "model.bin").write_bytes(model_bin(ctranslate2_variables(tiny_weights, kind), aliases))
        settings = {
            "alignment_heads": [[0, 1], [2, 3]],
            "suppress_ids": [1, 2, 258],
            "suppress_ids_begin": [32, 256],
            "lang_ids": [259, 260],
        }
        (folder / "config.json").write_text(json.dumps(settings))
        tokens = [*characters, *SPECIAL, *TIMESTAMPS]
        (folder / "vocabulary.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
        write_tokenizer(folder)
        return folder

    return write


@pytest.fixture
def write_wheel(tmp_path: Path) -> Callable[..., str]:
    """Writes a wheel with the given members into tmp_path/index and returns its SHA-256."""

    def write(name: str, members: Mapping[str, bytes | Path], version: str = "1.0.0") -> str:
        index = tmp_path / "index"
        index.mkdir(exist_ok=True)
        module = name.replace("-", "_")
        path = index / f"{module}-{version}-py3-none-any.whl"
        info = f"{module}-{version}.dist-info"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content.read_bytes() if isinstance(content, Path) else content)
            metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n"
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return write


@pytest.fixture
def package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """pip sees nothing but tmp_path/index, and the cache is tmp_path/cache."""
    index = tmp_path / "index"
    index.mkdir(exist_ok=True)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    yield index
