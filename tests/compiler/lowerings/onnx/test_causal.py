"""The lowered graph of every decoder-only family, against transformers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sottovoce_compiler.families import UnsupportedModelError, language_model
from sottovoce_compiler.families.causal import CausalModel, CausalSpec, Rope
from sottovoce_compiler.lowerings.onnx.causal import CausalLowering, rotary_frequencies
from sottovoce_compiler.lowerings.onnx.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.onnx.graph import WEIGHTS_NAME, WeightFile
from sottovoce_compiler.sources import resolve

from ...causal_case import GEMMA_TYPES, LLAMA3, kl, random_model, save, source_logits

VNNI = frozenset({"avx512_vnni"})
CONTEXT = 64
SHARED: dict[str, Any] = {
    **{"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}
LONGROPE = {
    **{"rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [1.5 + 0.5 * i for i in range(8)],
}
# Family and shape -> model_type and what differs from SHARED. Heads of 16 and 32: the rotation takes multiples of 16.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama 3": ("llama", {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"head_dim": 16, "sliding_window": 6}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4}),
    "gemma3": (
        "gemma3_text",
        {
            **{"head_dim": 32, "query_pre_attn_scalar": 24, "sliding_window": 7, "layer_types": GEMMA_TYPES},
            **{"num_hidden_layers": 4, "final_logit_softcapping": 30.0},
        },
    ),
    "phi3 partial, longrope": (
        "phi3",
        {
            **{"num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": LONGROPE},
            **{"original_max_position_embeddings": 64, "max_position_embeddings": 128},
        },
    ),
}
TOKENS = [int(token) for token in np.random.default_rng(0).integers(3, 300, 50)]


def made(name: str, folder: Path) -> tuple[CausalModel, Any]:
    """One of `MODELS` as the compiler reads it, and in torch."""
    from transformers import AutoConfig

    kind, differences = MODELS[name]
    source = random_model(AutoConfig.for_model(kind, **{**SHARED, **differences}))
    return language_model(resolve(str(save(source, folder / "source")))), source


class Sequenced:
    """One sequence through a lowered graph; past and present share one buffer, as the engine binds them."""

    def __init__(self, model: CausalModel, precision: str, folder: Path, context: int = CONTEXT) -> None:
        import onnxruntime as ort

        spec = model.spec
        with WeightFile(folder / WEIGHTS_NAME) as weights:
            recipe = causal_recipe(precision, "x86-64", VNNI, spec)
            graph = CausalLowering(model, recipe, weights, context).graph({})
        (folder / "model.onnx").write_bytes(graph)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self.session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.binding, self.length = self.session.io_binding(), 0
        shape = (1, spec.kv_heads, context, spec.head_width)
        names = [f"{kind}_{layer}" for layer in range(spec.layers) for kind in ("key", "value")]
        self.caches = {name: np.zeros(shape, np.float32) for name in names}
        for name, cache in self.caches.items():
            self.binding.bind_input(f"past_{name}", "cpu", 0, np.float32, shape, cache.ctypes.data)
            self.binding.bind_output(f"present_{name}", "cpu", 0, np.float32, shape, cache.ctypes.data)

    def __call__(self, tokens: Sequence[int], positions: Sequence[int] | None = None) -> NDArray[np.float32]:
        self.length += len(tokens)
        wanted = range(len(tokens)) if positions is None else positions
        self.binding.bind_cpu_input("tokens", np.array([tokens], np.int64))
        self.binding.bind_cpu_input("total_length", np.array([self.length], np.int32))
        self.binding.bind_cpu_input("logit_positions", np.array(wanted, np.int64))
        self.binding.bind_output("logits")
        self.session.run_with_iobinding(self.binding)
        return np.array(self.binding.get_outputs()[-1].numpy()[0])


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_sources_at_once_in_parts_and_step_by_step(name: str, tmp_path: Path) -> None:
    model, source = made(name, tmp_path)
    wanted = source_logits(source, TOKENS)
    sequence = Sequenced(model, "fp32", tmp_path)
    for sizes in ([50], [13, 1, 30, 6], [1] * 50):
        sequence.length = 0
        parts = np.split(np.array(TOKENS), np.cumsum(sizes)[:-1])
        found = np.concatenate([sequence([int(token) for token in part]) for part in parts])
        # Sums in another order; logits are of size 1 to 10.
        np.testing.assert_allclose(found, wanted, atol=2e-4)
        assert kl(wanted, found).max() < 1e-6
    assert np.abs(np.diff(wanted, axis=0)).mean() > 0.1, "every token changes the logits"


@pytest.mark.parametrize("name", ["gemma3", "mistral"])
def test_a_window_hides_what_lies_before_it(name: str, tmp_path: Path) -> None:
    model, _ = made(name, tmp_path)
    spec = replace(model.spec, layers=1)
    sequence = Sequenced(CausalModel(spec, model.load), "fp32", tmp_path)
    window = spec.sliding_window or 0
    plain = sequence(TOKENS)
    changed = [TOKENS[0] + 1, *TOKENS[1:]]
    sequence.length = 0
    moved = np.abs(sequence(changed) - plain).max(axis=1) > 1e-6
    short, long = int(moved[:window].sum()), int(moved[window:].sum())
    assert short == window and long == 0, "the first token is seen by itself and the window - 1 tokens after it"


def test_windows_need_an_engine_that_counts_them_rightly(tmp_path: Path) -> None:
    model, _ = made("mistral", tmp_path)  # a window of 6
    with WeightFile(tmp_path / WEIGHTS_NAME) as weights:
        recipe = causal_recipe("fp32", "x86-64", VNNI, model.spec)
        versions = [CausalLowering(model, recipe, weights, context).min_engine_version for context in (6, 7)]
    assert versions == ["1.22", "1.24"], "a window as long as the context hides nothing"


def test_only_the_positions_asked_for_come_back_in_their_order(tmp_path: Path) -> None:
    sequence = Sequenced(made("qwen3", tmp_path)[0], "fp32", tmp_path)
    whole = sequence(TOKENS)
    sequence.length = 0
    np.testing.assert_allclose(sequence(TOKENS, [49, 3]), whole[[49, 3]], atol=1e-5)


def test_what_a_cache_holds_beyond_its_length_is_not_seen(tmp_path: Path) -> None:
    sequence = Sequenced(made("llama", tmp_path)[0], "fp32", tmp_path)
    sequence(TOKENS[:20])
    wanted = sequence([5])
    sequence(TOKENS[20:40])
    sequence.length = 20
    np.testing.assert_array_equal(sequence([5]), wanted)


# KL of random weights, whose logits are of size 5: far above a trained model's, and in the same order.
@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-4), ("int8", 0.03), ("int4", 1.0)])
@pytest.mark.parametrize("name", ["llama tied", "qwen2", "gemma3"])
def test_a_smaller_precision_loses_little(name: str, precision: str, most: float, tmp_path: Path) -> None:
    model, source = made(name, tmp_path)
    wanted = source_logits(source, TOKENS)
    loss = kl(wanted, Sequenced(model, precision, tmp_path)(TOKENS)).mean()
    assert 0 < loss < most


def test_integers_give_the_same_logits_in_parts(tmp_path: Path) -> None:
    sequence = Sequenced(made("llama tied", tmp_path)[0], "int4", tmp_path)
    whole = sequence(TOKENS)
    sequence.length = 0
    parts = [sequence(TOKENS[:17]), *(sequence([token]) for token in TOKENS[17:])]
    # A value on the edge between two codes of an activation may fall to either side.
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=0.2)
    assert kl(whole, np.concatenate(parts)).mean() < 1e-3


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    sizes = {}
    for name in ("llama tied", "llama"):
        (tmp_path / name).mkdir()
        Sequenced(made(name, tmp_path / name)[0], "int8", tmp_path / name)
        sizes[name] = (tmp_path / name / WEIGHTS_NAME).stat().st_size
    table = 300 * 64 * (1 + 4 / 32)  # bytes: a code each, a scale for 32
    assert sizes["llama"] - sizes["llama tied"] > 0.9 * table


def test_longrope_turns_by_the_factors_of_its_context() -> None:
    rope = Rope(16, 10_000.0, factors=(4.0,) * 8, short_factors=(2.0,) * 8, original_context=64)
    plain = rotary_frequencies(Rope(16, 10_000.0), 64)
    np.testing.assert_allclose(rotary_frequencies(rope, 64), plain / 2, rtol=1e-6)
    np.testing.assert_allclose(rotary_frequencies(rope, 65), plain / 4, rtol=1e-6)


def test_longrope_beyond_its_first_context_is_the_sources(tmp_path: Path) -> None:
    model, source = made("phi3 partial, longrope", tmp_path)
    tokens = (TOKENS * 2)[:90]
    found = Sequenced(model, "fp32", tmp_path, context=128)(tokens)
    assert kl(source_logits(source, tokens), found).max() < 1e-6


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model, _ = made("gemma3", tmp_path)
    made_twice = []
    for _ in range(2):
        Sequenced(model, "int4", tmp_path)
        made_twice.append([(tmp_path / name).read_bytes() for name in ("model.onnx", WEIGHTS_NAME)])
    assert made_twice[0] == made_twice[1]


def test_a_head_that_cannot_be_turned_is_refused_by_name(tmp_path: Path) -> None:
    model, _ = made("llama", tmp_path)
    narrow = replace(model.spec, rope=Rope(8, 10_000.0))
    with pytest.raises(UnsupportedModelError, match="8 values of each head turn"):
        Sequenced(CausalModel(narrow, model.load), "fp32", tmp_path)


def test_a_model_made_for_embeddings_gives_its_normed_states(tmp_path: Path) -> None:
    model, source = made("llama tied", tmp_path)
    spec: CausalSpec = replace(model.spec, pooling="mean")
    sequence = Sequenced(CausalModel(spec, model.load), "fp32", tmp_path)
    sequence.binding.bind_output("hidden")
    sequence(TOKENS)
    import torch

    with torch.no_grad():
        wanted = source.model(torch.tensor([TOKENS]), use_cache=False).last_hidden_state[0].numpy()
    hidden = next(value.numpy() for value in sequence.binding.get_outputs() if value.shape() == [1, 50, 64])
    np.testing.assert_allclose(hidden[0], wanted, atol=2e-4)
