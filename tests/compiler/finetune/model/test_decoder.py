"""Our forward pass against transformers' and PEFT's, for every family, and examples of a pack against each other."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from sottovoce_compiler.finetune.batches import IGNORED, PackedTokens
from sottovoce_compiler.finetune.model.adapted import Lora, attach_all
from sottovoce_compiler.finetune.model.decoder import Decoder, Kept

from ...causal_case import MODELS, config_of, random_model
from .decoder_case import CLOSE, FAMILIES, alone, batch_of, copy_adapter, decoder_of, pair_of, parts, theirs, with_peft

KINDS = {
    "lora": Lora(4, 6.0),
    "rslora": Lora(4, 6.0, rank_stabilized=True),
    "dora": Lora(4, 6.0, dora=True),
}
# Names of configs whose windows are shorter than the examples below.
WINDOWS = {
    "gemma3": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": 6,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
    },
    "phi3": {"sliding_window": 4},
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_transformers_own(name: str, tmp_path: Path) -> None:
    model, decoder = pair_of(name, tmp_path)
    batch = batch_of(23, 1, 17)
    with torch.no_grad():
        torch.testing.assert_close(decoder.logits(batch), theirs(model, batch), **CLOSE)


@pytest.mark.parametrize("name", WINDOWS)
def test_layers_that_slide_see_what_transformers_lets_them(name: str, tmp_path: Path) -> None:
    model, decoder = pair_of(name, tmp_path, **WINDOWS[name])
    assert any(decoder.spec.sliding_layers)
    batch = batch_of(23, 31)
    with torch.no_grad():
        torch.testing.assert_close(decoder.logits(batch), theirs(model, batch), **CLOSE)


def test_longrope_chooses_its_factors_for_each_example(tmp_path: Path) -> None:
    model, decoder = pair_of("phi3 partial, longrope", tmp_path)
    batch = batch_of(300, 20)  # beyond the 256 positions of its original context, and within
    with torch.no_grad():
        torch.testing.assert_close(decoder.logits(batch), theirs(model, batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_pefts(name: str, kind: str, tmp_path: Path) -> None:
    model, decoder = pair_of(name, tmp_path)
    wrapped = with_peft(model, KINDS[kind])
    copy_adapter(wrapped, decoder, KINDS[kind])
    batch = batch_of(23, 2, 17)
    expected = functional.cross_entropy(theirs(wrapped, batch), batch.labels, ignore_index=IGNORED, reduction="sum")
    expected.backward()
    found = decoder(batch)
    found.total.backward()
    assert found.tokens == int((batch.labels != IGNORED).sum())
    torch.testing.assert_close(found.total, expected, **CLOSE)
    assert decoder.adapted().keys() == decoder.linears().keys()
    for module, layer in decoder.adapted().items():
        for part, parameter in parts(wrapped, module).items():
            scale = float(parameter.grad.abs().max())
            assert scale > 0
            torch.testing.assert_close(
                getattr(layer, part).grad, parameter.grad, rtol=1e-4, atol=2e-5 * scale, msg=f"{module}.{part}"
            )


@pytest.mark.parametrize("name", MODELS)
def test_packed_examples_compute_what_they_compute_alone(name: str, tmp_path: Path) -> None:
    _, decoder = pair_of(name, tmp_path, **WINDOWS.get(name, {}))
    batch = batch_of(9, 30, 1, 16)
    with torch.no_grad():
        packed = decoder.logits(batch).split(batch.segments.lengths)
        for index, logits in enumerate(packed):
            torch.testing.assert_close(logits, decoder.logits(alone(batch, index)), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_changing_one_example_leaves_the_others_as_they_were_bit_for_bit(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = random_model(config_of(name))
    decoder = decoder_of(model, tmp_path / "source", Kept(dtype))
    attach_all(decoder.linears(), KINDS["lora"])
    batch = batch_of(9, 30, 16)
    tokens = batch.tokens.clone()
    tokens[:9] = (tokens[:9] + 11) % 250 + 3
    changed = replace(batch, tokens=tokens)
    with torch.no_grad():
        before, after = decoder.hidden(batch), decoder.hidden(changed)
    assert not torch.equal(before[:9], after[:9])
    assert torch.equal(before[9:], after[9:])


def gradients(decoder: Decoder, batch: PackedTokens) -> dict[str, torch.Tensor]:
    decoder.zero_grad(set_to_none=True)
    decoder(batch).total.backward()
    return {name: value.grad.clone() for name, value in decoder.named_parameters() if value.grad is not None}


def test_gradients_of_a_pack_are_the_sum_of_its_examples(tmp_path: Path) -> None:
    _, decoder = pair_of("gemma3", tmp_path)
    attach_all(decoder.linears(), KINDS["dora"])
    batch = batch_of(9, 30, 16)
    packed = gradients(decoder, batch)
    each = [gradients(decoder, alone(batch, index)) for index in range(3)]
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, sum(one[name] for one in each), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_computed_again_give_the_same_gradients(name: str, tmp_path: Path) -> None:
    _, decoder = pair_of(name, tmp_path)
    attach_all(decoder.linears(), KINDS["lora"])
    batch = batch_of(9, 30)
    kept = gradients(decoder.train(), batch)
    decoder.checkpointing = True
    again = gradients(decoder, batch)
    assert kept.keys() == again.keys() and len(kept) == 2 * len(decoder.linears())
    for name, gradient in kept.items():
        assert torch.equal(gradient, again[name]), name


def test_without_adapters_nothing_is_trained_and_detaching_gives_the_base_back(tmp_path: Path) -> None:
    _, decoder = pair_of("qwen2", tmp_path)
    batch = batch_of(9, 30)
    assert not [name for name, value in decoder.named_parameters() if value.requires_grad]
    before, state = decoder.logits(batch), {name: value.clone() for name, value in decoder.state_dict().items()}
    attach_all(decoder.linears(), KINDS["dora"])
    with torch.no_grad():
        for layer in decoder.adapted().values():
            assert layer.lora_b is not None
            layer.lora_b.normal_()
    assert not torch.allclose(before, decoder.logits(batch), atol=1e-2)
    for layer in decoder.linears().values():
        layer.detach()
    assert torch.equal(before, decoder.logits(batch))
    assert not decoder.adapted() and decoder.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in decoder.state_dict().items())


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_in_bfloat16_the_loss_is_that_of_transformers_in_bfloat16(name: str, tmp_path: Path) -> None:
    model = random_model(config_of(name))
    decoder = decoder_of(model, tmp_path / "source", Kept(torch.bfloat16))
    batch = batch_of(40, 60)
    with torch.no_grad():
        exact = functional.cross_entropy(theirs(model, batch), batch.labels, reduction="sum")
        half = functional.cross_entropy(theirs(model.bfloat16(), batch).float(), batch.labels, reduction="sum")
        ours = decoder(batch).total
    # Both are rounded, each in its own places: ours may be off by no more than theirs is, with some room.
    assert abs(float(ours - exact)) < 2 * abs(float(half - exact)) + 0.01 * float(exact)
    assert {value.dtype for name, value in decoder.named_parameters() if "norm" not in name} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["int8", "nf4", "fp8"])
def test_quantized_weights_train_as_their_dequantized_ones_do(kind: str, tmp_path: Path) -> None:
    from sottovoce_kernels.quantized import QuantizedWeight

    model = random_model(config_of("llama"))
    small = decoder_of(model, tmp_path / "small", Kept(quantize=kind))
    with torch.no_grad():
        modules = dict(model.named_modules())
        for name, layer in small.linears().items():
            weight = layer.weight
            assert isinstance(weight, QuantizedWeight)
            modules[name].weight.copy_(weight.dequantize(torch.float32))
    whole = decoder_of(model, tmp_path / "whole")
    batch = batch_of(9, 30)
    for decoder in (small, whole):
        attach_all(decoder.linears(), KINDS["dora"])
    expected, found = gradients(whole, batch), gradients(small, batch)
    assert expected.keys() == found.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4)


def test_a_batch_of_which_nothing_is_learned_has_a_loss_of_zero_and_gradients_of_zero(tmp_path: Path) -> None:
    _, decoder = pair_of("llama", tmp_path)
    attach_all(decoder.linears(), KINDS["lora"])
    batch = batch_of(9, 5)
    found = decoder(replace(batch, labels=torch.full_like(batch.labels, IGNORED)))
    found.total.backward()
    assert (float(found.total.detach()), found.tokens) == (0.0, 0)
    assert not any(value.grad.any() for value in decoder.parameters() if value.grad is not None)
