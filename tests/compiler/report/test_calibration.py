import numpy as np
import pytest
import torch

from sottovoce.errors import InputError
from sottovoce_compiler.families import language_model
from sottovoce_compiler.report import calibration
from sottovoce_compiler.report.calibration import RANDOM_TOKENS, calibrate
from sottovoce_compiler.report.texts import TextSet
from sottovoce_compiler.sources import Checkpoint, resolve

from ..causal_case import config_of, random_model, save


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(save(random_model(config_of("llama")), tmp_path_factory.mktemp("calibration"))))


def test_every_matrix_of_every_layer_has_the_mean_square_of_its_inputs(source: Checkpoint) -> None:
    text = "the cat"  # "th" is one token
    found = calibrate(source, language_model(source), TextSet("a text", (text,)))
    names = {f"blk.{layer}.{name}.weight" for layer in range(4) for name in calibration_names()}
    assert set(found.importance) == names
    assert found.data == {"name": "a text", "sha256": TextSet("", (text,)).sha256, "tokens": 6}
    # The first layer's attention sees the normed embeddings of these six tokens, and nothing before them.
    ids = calibration.source_tokenizer(source).encode(text).ids
    embed = source.tensors.load("model.embed_tokens.weight").astype(np.float64)[ids]
    normed = embed / np.sqrt((embed**2).mean(axis=-1, keepdims=True) + 1e-6)
    normed *= source.tensors.load("model.layers.0.input_layernorm.weight").astype(np.float64)
    np.testing.assert_allclose(found.importance["blk.0.attn_q.weight"], (normed**2).mean(axis=0), rtol=1e-4)
    assert found.importance["blk.3.ffn_down.weight"].shape == (80,)


def calibration_names() -> tuple[str, ...]:
    return ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def test_without_text_the_same_random_tokens_are_drawn_each_time(source: Checkpoint) -> None:
    model = language_model(source)
    first, second = (calibrate(source, model, None) for _ in range(2))
    assert first.data == {"name": "random tokens", "sha256": None, "tokens": RANDOM_TOKENS}
    for name, values in first.importance.items():
        np.testing.assert_array_equal(second.importance[name], values)
        assert values.dtype == np.float32 and (values > 0).all()


def test_windows_are_no_longer_than_the_models_context_and_a_long_text_is_cut(
    source: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def importance(model: torch.nn.Module, tokens: list[np.ndarray], modules: object) -> dict[str, np.ndarray]:
        seen.extend(window.shape[1] for window in tokens)
        return {}

    monkeypatch.setattr(calibration, "importance", importance)
    monkeypatch.setattr(calibration, "MAX_TOKENS", 150)
    found = calibrate(source, language_model(source), TextSet("long", ("x" * 100, "y" * 100)))
    assert seen == [64, 36, 50] and found.data["tokens"] == 150


def test_a_text_without_tokens_is_refused(source: Checkpoint) -> None:
    with pytest.raises(InputError, match="the calibration text has no tokens"):
        calibrate(source, language_model(source), TextSet("empty", ("",)))
