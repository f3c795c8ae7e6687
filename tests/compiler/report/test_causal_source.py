from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sottovoce_compiler.report.causal_source import CausalSource
from sottovoce_compiler.sources import SourceError, resolve
from sottovoce_compiler.sources.checkpoint import Array, Checkpoint, Tensors

from ..causal_case import config_of, random_model, save, source_logits

TOKENS = [5, 17, 200, 3, 3, 88, 41, 250]


@dataclass(frozen=True)
class Changed:
    """A checkpoint's tensors, some of which are others, or (None) missing."""

    tensors: Tensors
    changes: Mapping[str, Array | None]

    def names(self) -> list[str]:
        return [name for name in self.tensors.names() if self.changes.get(name, 0) is not None]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.load(name).shape

    def load(self, name: str) -> Array:
        changed = self.changes.get(name)
        return self.tensors.load(name) if changed is None else changed


def checkpoint_of(name: str, folder: Path, **changes: Any) -> tuple[Any, Checkpoint]:
    config = config_of(name)
    for key, value in changes.items():
        setattr(config, key, value)
    model = random_model(config)
    return model, resolve(str(save(model, folder)))


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "smollm3", "phi3 partial, longrope"])
def test_the_logits_are_those_of_the_model_that_was_saved(name: str, tmp_path: Path) -> None:
    model, checkpoint = checkpoint_of(name, tmp_path)
    source = CausalSource(checkpoint)
    found = source.logits(TOKENS)
    assert found.dtype == np.float32 and found.shape == (len(TOKENS), 300)
    np.testing.assert_allclose(found, source_logits(model, TOKENS), atol=1e-5)
    np.testing.assert_array_equal(source.logits(TOKENS), found), "nothing is kept between calls"
    np.testing.assert_allclose(source.logits(TOKENS[:3]), found[:3], atol=1e-5)


def test_weights_are_read_when_they_are_first_needed_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, checkpoint = checkpoint_of("llama", tmp_path)
    source = CausalSource(replace(checkpoint, tensors=Changed(checkpoint.tensors, {})))
    assert source.load() is source.load() and not source.load().training


def test_a_tied_head_needs_no_tensor_and_one_of_its_own_does(tmp_path: Path) -> None:
    _, tied = checkpoint_of("llama tied, no grouping", tmp_path / "tied")
    assert "lm_head.weight" not in tied.tensors.names()
    assert CausalSource(tied).logits(TOKENS).shape == (len(TOKENS), 300)
    _, own = checkpoint_of("llama", tmp_path / "own")
    for changes, said in (
        ({"lm_head.weight": None}, "tensor lm_head.weight is missing"),
        ({"model.norm.weight": None}, "tensor model.norm.weight is missing"),
        ({"model.layers.1.mlp.up_proj.weight": np.zeros((3, 3), np.float32)}, "or of another shape"),
    ):
        with pytest.raises(SourceError, match=said):
            CausalSource(replace(own, tensors=Changed(own.tensors, changes))).load()


def test_a_config_that_transformers_cannot_use_is_a_source_error(tmp_path: Path) -> None:
    _, checkpoint = checkpoint_of("llama", tmp_path)
    for config in ({**checkpoint.config, "model_type": "nothing"}, {**checkpoint.config, "hidden_size": "wide"}):
        with pytest.raises(SourceError, match="transformers cannot make the source's model"):
            CausalSource(replace(checkpoint, config=config)).load()


def test_half_precision_in_the_config_is_no_reason_to_compute_in_it(tmp_path: Path) -> None:
    _, checkpoint = checkpoint_of("llama", tmp_path)
    for key in ("dtype", "torch_dtype"):
        source = CausalSource(replace(checkpoint, config={**checkpoint.config, key: "bfloat16"}))
        assert {str(parameter.dtype) for parameter in source.load().parameters()} == {"torch.float32"}
