from typing import Any

import pytest

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.families.whisper_tensors import check_tensors, expected_tensors
from sottovoce_compiler.sources import SourceError, resolve

from ..whisper_case import CONFIG, checkpoint_of, random_model

ODD: dict[str, Any] = {
    **CONFIG,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_ffn_dim": 96,
    "num_mel_bins": 128,
    "max_source_positions": 20,
}


def check(**changes: Any) -> None:
    checkpoint = checkpoint_of(random_model(ODD), {**ODD, **changes})
    check_tensors(checkpoint, whisper_spec(checkpoint))


def test_names_and_shapes_are_transformers_own() -> None:
    state = random_model(ODD).state_dict()
    spec = whisper_spec(checkpoint_of(random_model(ODD), ODD))
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items() if name != "proj_out.weight"}
    assert dict(expected_tensors(spec)) == theirs
    check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 128}, r"conv1.weight has shape \(64, 128, 3\), by config.json it has \(128, 128, 3\)"),
        ({"num_mel_bins": 80}, "conv1.weight"),
        ({"vocab_size": 400}, "embed_tokens.weight"),
        ({"max_target_positions": 448}, "decoder.embed_positions.weight"),
        ({"decoder_ffn_dim": 64}, "decoder.layers.0.fc1.weight"),
        ({"encoder_layers": 2}, "encoder_layers = 2, but the weights have more"),
    ],
)
def test_weights_that_the_config_contradicts_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        check(**changes)


def test_a_layer_that_is_missing_is_a_source_error() -> None:
    from dataclasses import replace

    checkpoint = checkpoint_of(random_model(ODD), ODD)

    class Fewer:
        def names(self) -> list[str]:
            return checkpoint.tensors.names()

        def shape(self, name: str) -> tuple[int, ...]:
            if name == "model.encoder.layers.2.fc2.bias":
                raise SourceError(f"there is no tensor {name!r}")
            return checkpoint.tensors.shape(name)

        def load(self, name: str) -> Any:
            raise AssertionError("no weight is read")

    with pytest.raises(SourceError, match=r"layers\.2\.fc2\.bias"):
        check_tensors(replace(checkpoint, tensors=Fewer()), whisper_spec(checkpoint))


@pytest.mark.weights
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_real_checkpoints_have_just_these(name: str) -> None:
    checkpoint = resolve(name)
    spec = whisper_spec(checkpoint)
    check_tensors(checkpoint, spec)
    assert {name for name, _ in expected_tensors(spec)} == set(checkpoint.tensors.names()) - {"proj_out.weight"}
