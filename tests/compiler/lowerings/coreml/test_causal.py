"""Functions of a package against transformers' own model, evaluated from the files over one state, for every family."""

from pathlib import Path

import numpy as np
import pytest

from sottovoce_compiler.families import language_model
from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.lowerings.coreml.causal_recipe import causal_parts
from sottovoce_compiler.sources import resolve

from ...causal_case import CONTEXT, MODELS, config_of, kl, random_model, save, source_logits
from ...coreml_case import chat_package, prefilled, stepped

TOKENS = [int(token) for token in np.random.default_rng(0).integers(3, 300, 24)]


def made(name: str, folder: Path) -> tuple[CausalModel, np.ndarray]:
    """A random model, and its logits for TOKENS in torch."""
    model = random_model(config_of(name))
    return language_model(resolve(str(save(model, folder / "model")))), source_logits(model, TOKENS)


@pytest.mark.parametrize("name", MODELS)
def test_over_cached_steps_the_distribution_is_transformers_own(name: str, tmp_path: Path) -> None:
    """To the rounding of float16; the same tokens read at once give the same again."""
    model, wanted = made(name, tmp_path)
    functions = chat_package(model, "fp16", CONTEXT, tmp_path)
    steps = stepped(functions, TOKENS, CONTEXT)
    assert kl(wanted, steps).mean() < 3e-4
    assert np.abs(steps - wanted).max() < 0.03 * np.abs(wanted).max()
    assert np.abs(prefilled(functions, TOKENS, CONTEXT) - steps).max() < 0.01 * np.abs(wanted).max()


@pytest.mark.parametrize(("precision", "allowed"), [("int8", 0.01), ("pal6", 0.1), ("pal4", 0.5), ("int4", 0.5)])
def test_fewer_bits_lose_as_much_as_they_may(precision: str, allowed: float, tmp_path: Path) -> None:
    """Random weights are the hardest to round: what is shown is that the right values came back."""
    model, wanted = made("llama, wide heads", tmp_path)
    functions = chat_package(model, precision, CONTEXT, tmp_path)
    assert kl(wanted, stepped(functions, TOKENS, CONTEXT)).mean() < allowed


def test_both_functions_have_one_set_of_weights(tmp_path: Path) -> None:
    model, _ = made("llama", tmp_path)
    chat_package(model, "fp16", CONTEXT, tmp_path)
    spec = model.spec
    weights = (tmp_path / "Model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    heads = 2 * spec.vocab_size * spec.width
    attention = 2 * (spec.heads + spec.kv_heads) * spec.head_width * spec.width
    values = heads + spec.layers * (attention + 3 * spec.ffn * spec.width)
    assert 2 * values < weights < 2.3 * values


def test_the_mix_of_4_bits_keeps_what_costs_most_finer(tmp_path: Path) -> None:
    model, _ = made("llama", tmp_path)
    importance = {"0.q": np.ones(model.spec.width, np.float32)}
    parts = causal_parts("int4", model.spec, importance)
    assert parts.of("q", 0).describe() == "4 bits in blocks of 16"
    assert parts.of("v", 2).describe() == "8 bits in blocks of 16"
    assert parts.of("embed", None).describe() == "8 bits by row"
    assert getattr(parts.of("q", 0), "importance", None) is importance["0.q"]
    assert getattr(parts.of("q", 1), "importance", None) is None
