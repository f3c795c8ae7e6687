"""The lowered graph of every decoder-only family, run by the runtime's engine, against transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_bundle_case import chat_fields

from sottovoce.bundle import open_bundle
from sottovoce.engines.litert_chat import LiteRtChat
from sottovoce_compiler.families import language_model
from sottovoce_compiler.lowerings.litert.causal_lowering import lower_litert
from sottovoce_compiler.lowerings.litert.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.litert.stores import Int4Blocks, Int8Rows
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.sources import resolve
from sottovoce_compiler.sources.checkpoint import SourceError

from ...causal_case import CONTEXT, MODELS, SHARED, config_of, kl, random_model, save, source_logits

TOKENS = [int(token) for token in np.random.default_rng(0).integers(3, 300, 50)]


def lowered(source: Any, folder: Path, precision: str = "fp32", **how: Any) -> LiteRtChat:
    """The engine of a model in torch, by way of a checkpoint and a bundle."""
    checkpoint = resolve(str(save(source, folder / "source")))
    model = language_model(checkpoint)
    found = lower_litert(model, checkpoint, precision, CONTEXT, folder, **how)
    fields = chat_fields(model.spec, engine=dict(found.engine)) | {"model": dict(found.model)}
    return LiteRtChat(open_bundle(write_bundle(folder / "m.svb", fields, found.files)), 1)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_sources_at_once_and_step_by_step(name: str, tmp_path: Path) -> None:
    source = random_model(config_of(name))
    wanted, engine = source_logits(source, TOKENS), lowered(source, tmp_path)
    for sizes in ([50], [13, 1, 30, 6], [1] * 50):
        engine.truncate(0)
        parts = np.split(np.array(TOKENS), np.cumsum(sizes)[:-1])
        found = np.concatenate([engine.evaluate(part.tolist(), outputs=part.size).copy() for part in parts])
        # Sums in another order; logits are of size 1 to 10.
        np.testing.assert_allclose(found, wanted, atol=3e-4)
        assert kl(wanted, found).max() < 1e-6
    assert np.abs(np.diff(wanted, axis=0)).mean() > 0.1, "every token changes the logits"


@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-4), ("int8", 0.05), ("int4", 0.6)])
def test_rounded_weights_stay_near_the_source(precision: str, most: float, tmp_path: Path) -> None:
    from transformers import AutoConfig

    source = random_model(AutoConfig.for_model("llama", **{**SHARED, "hidden_size": 96, "intermediate_size": 128}))
    found = lowered(source, tmp_path, precision).evaluate(TOKENS, outputs=50)
    assert 0 < kl(source_logits(source, TOKENS), found).mean() < most


def test_what_is_made_is_told_in_the_report_and_progress(tmp_path: Path) -> None:
    source, told = random_model(config_of("gemma3")), list[float]()
    checkpoint = resolve(str(save(source, tmp_path / "source")))
    model = language_model(checkpoint)
    found = lower_litert(model, checkpoint, "int8", CONTEXT, tmp_path, progress=told.append)
    assert found.model["window"] == 7 and found.model["heads"] == 6
    assert found.weights["share_by_type"] == {"int8 weights a channel, int8 activations a row": 1.0}
    assert told[0] == 0 and told == sorted(told) and told[-1] < 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.tflite", "source"]


def test_four_bits_keep_v_and_some_of_down_finer_and_weigh_columns_by_importance(tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model("llama", **{**SHARED, "hidden_size": 96, "intermediate_size": 128})
    checkpoint = resolve(str(save(random_model(config), tmp_path / "source")))
    spec, asked = language_model(checkpoint).spec, list[tuple[str, int]]()

    def importance(role: str, layer: int) -> Any:
        asked.append((role, layer))
        return np.ones(96, np.float32)

    recipe = causal_recipe("int4", spec, importance)
    assert recipe.linear("v", 0) == Int8Rows() == recipe.head and not recipe.together(0)
    chosen = recipe.linear("q", 1)
    assert isinstance(chosen, Int4Blocks) and chosen.importance is not None and asked == [("q", 1)]


def test_a_model_without_a_tokenizer_file_is_refused(tmp_path: Path) -> None:
    checkpoint = resolve(str(save(random_model(config_of("llama")), tmp_path / "source")))
    model = language_model(checkpoint)
    (tmp_path / "source" / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"tokenizer\.json"):
        lower_litert(model, replace(checkpoint, tokenizer_file=None), "int8", CONTEXT, tmp_path)
