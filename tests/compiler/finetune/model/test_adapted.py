import math

import pytest
import torch
from torch.nn import functional

from sottovoce_compiler.finetune.model.adapted import (
    METHODS,
    AdaptedLinear,
    Lora,
    apply_together,
    attach_all,
    merge_difference,
)
from sottovoce_kernels.quantized import quantize


def linear(rows: int = 6, columns: int = 64, *, biased: bool = True, seed: int = 0) -> AdaptedLinear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return AdaptedLinear(weight, torch.randn(rows, generator=generator) if biased else None)


def random_b(layer: AdaptedLinear, seed: int = 1) -> AdaptedLinear:
    assert layer.lora_b is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.lora_b.normal_(generator=generator)
        if layer.magnitude is not None:
            layer.magnitude.mul_(1 + torch.rand(layer.magnitude.shape, generator=generator))
    return layer


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_adapter_changes_nothing(method: str) -> None:
    layer, x = linear(), torch.randn(5, 64)
    before = layer(x)
    layer.attach(Lora.of(method, 4, 8.0))
    torch.testing.assert_close(layer(x), before, rtol=1e-6, atol=1e-6)
    assert layer.lora_a is not None and layer.lora_a.abs().max() <= 64**-0.5 and layer.lora_a.std() > 0.5 / 8 / 3**0.5


def test_scales_are_alpha_over_rank_or_over_its_root() -> None:
    assert Lora.of("lora", 16, 32.0).scale == 2.0
    assert Lora.of("rslora", 16, 32.0).scale == 8.0
    assert Lora.of("dora", 16, 32.0).scale == 2.0 and Lora.of("dora", 16, 32.0).dora


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("biased", [True, False])
def test_what_is_merged_computes_what_both_compute_apart(method: str, biased: bool) -> None:
    layer, x = linear(biased=biased), torch.randn(5, 64)
    layer.attach(Lora.of(method, 4, 8.0))
    random_b(layer)
    expected = functional.linear(x, layer.merged(), layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-4)
    assert merge_difference({"x": layer}).relative < 1e-5


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_a_strength_counts_where_it_is_used_and_not_where_it_is_trained(method: str) -> None:
    layer, x = linear(), torch.randn(5, 64)
    layer.attach(Lora.of(method, 4, 8.0, strength=0.25))
    whole = random_b(layer)(x)
    base = functional.linear(x, layer.plain, layer.bias)
    used = layer.eval()(x)
    torch.testing.assert_close(used - base, 0.25 * (whole - base), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(functional.linear(x, layer.merged(), layer.bias), used, rtol=1e-4, atol=1e-4)
    assert merge_difference({"x": layer}).relative < 1e-5


def test_a_merge_that_is_wrong_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"sound": linear(), "wrong": linear(seed=2)}
    attach_all(layers, Lora.of("lora", 4, 8.0))
    random_b(layers["sound"]), random_b(layers["wrong"])
    without = layers["wrong"].weight
    monkeypatch.setattr(layers["wrong"], "merged", lambda: without)
    found = merge_difference(layers)
    assert found.module == "wrong" and found.relative > 0.1
    monkeypatch.setattr(layers["sound"], "merged", lambda: torch.full_like(without, math.nan))
    assert math.isnan(merge_difference({"sound": layers["sound"]}).relative)


def test_the_length_of_doras_rows_is_a_constant_to_the_gradient() -> None:
    layer, x = linear(biased=False), torch.randn(5, 64)
    layer.attach(Lora.of("dora", 4, 8.0))
    random_b(layer)
    layer(x).square().sum().backward()
    a, b = (value.detach().clone().requires_grad_() for value in (layer.lora_a, layer.lora_b))
    magnitude = layer.magnitude.detach().clone().requires_grad_()
    changed = layer.weight + 2.0 * b @ a
    norm = torch.linalg.vector_norm(changed, dim=1).detach()
    (x @ (magnitude[:, None] / norm[:, None] * changed).T).square().sum().backward()
    for ours, theirs in ((layer.lora_a, a), (layer.lora_b, b), (layer.magnitude, magnitude)):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-3)


def test_layers_that_share_an_input_compute_together_what_they_compute_apart() -> None:
    layers, x = [linear(6), linear(8, biased=False, seed=1), linear(3, seed=2), linear(5, seed=3)], torch.randn(7, 64)
    layers[0].attach(Lora.of("dora", 4, 8.0))
    layers[1].attach(Lora.of("rslora", 2, 8.0))
    layers[2].attach(Lora.of("lora", 8, 8.0, dropout=0.5))
    for layer in layers[:3]:
        random_b(layer).eval()
    for ours, layer in zip(apply_together(x, layers), layers, strict=True):
        torch.testing.assert_close(ours, layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_dropout_drops_from_what_the_adapter_sees_while_it_is_trained_and_never_else(method: str) -> None:
    layer, x = linear(), torch.randn(2000, 64)
    layer.attach(Lora.of(method, 4, 8.0, dropout=0.5))
    random_b(layer)
    whole = layer.eval()(x)
    assert torch.equal(whole, layer(x))
    torch.manual_seed(0)
    dropped = torch.stack([layer.train()(x[:1].expand(2000, -1)) for _ in range(4)]).mean((0, 1))
    assert not torch.equal(layer(x), layer(x))
    torch.testing.assert_close(dropped, whole[0], rtol=0.05, atol=0.5)  # its mean is what it is without
    layer.detach()
    assert torch.equal(layer(x), linear()(x))


@pytest.mark.parametrize("kind", ["int8", "nf4", "q4_0", "fp8"])
@pytest.mark.parametrize("method", METHODS)
def test_over_quantized_weights_it_computes_what_it_does_over_the_dequantized(kind: str, method: str) -> None:
    plain = linear()
    small = AdaptedLinear(quantize(plain.weight, kind), plain.bias)
    wide = AdaptedLinear(small.weight.dequantize(torch.float32), plain.bias)
    x = torch.randn(5, 64)
    for layer in (small, wide):
        layer.attach(Lora.of(method, 4, 8.0), torch.Generator().manual_seed(0))
        random_b(layer)
        layer(x).square().sum().backward()
    torch.testing.assert_close(small(x), wide(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(small.merged(), wide.merged(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(small.lora_b.grad, wide.lora_b.grad, rtol=1e-4, atol=1e-3)
    assert small.state_dict().keys() - wide.state_dict().keys() and next(small.buffers()).dtype != torch.float32


def test_adapters_stay_in_float32_over_a_half_precision_base() -> None:
    layer = linear(biased=False)
    half = AdaptedLinear(layer.weight.detach().bfloat16())
    half.attach(Lora.of("dora", 4, 8.0))
    random_b(half)
    y = half(torch.randn(5, 64).bfloat16())
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    for parameter in (half.lora_a, half.lora_b, half.magnitude):
        assert parameter.dtype == parameter.grad.dtype == torch.float32 and parameter.grad.abs().max() > 0


def test_the_same_seed_gives_the_same_start() -> None:
    first, second = ({"a": linear(), "b": linear(seed=1)} for _ in range(2))
    attach_all(first, Lora.of("lora", 4, 8.0), seed=7)
    torch.rand(3)
    attach_all(second, Lora.of("lora", 4, 8.0), seed=7)
    assert all(torch.equal(first[name].lora_a, second[name].lora_a) for name in first)
    assert not torch.equal(first["a"].lora_a, first["b"].lora_a)
