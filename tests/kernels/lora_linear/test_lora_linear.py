"""lora_linear in four tiers: each kind of weight, several projections of one input, with and without an adapter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from tiers import all_targets, check, check_gradients, interpreted_dtypes, meta, random, training_dtypes
from torch import Tensor

from sottovoce_kernels.aot import Artifact, Target, recorded, tensor_core_instructions
from sottovoce_kernels.lora_linear import Projection, lora_linear
from sottovoce_kernels.lora_linear.tiles import DECODED_IN_LOOP, GRADIENT_IN_LOOP, TILES, splits, tiles_for
from sottovoce_kernels.quantized import FORMATS, QuantizedWeight, quantize

KINDS = ("dense", *FORMATS)
SCALE = 0.75
# Beside the rounding of a result: S is rounded before it is multiplied again, and y between its two products.
ROUNDINGS = {torch.float32: 64.0, torch.float16: 8.0, torch.bfloat16: 8.0}

PRODUCTS = {"narrow", "project", "input_gradient", "adapter_gradient"}

kinds = pytest.mark.parametrize("kind", KINDS)


@dataclass(frozen=True)
class Layer:
    """A projection to be made: outputs, rank (0: no adapter), whether it has a bias, kind of its weight."""

    outputs: int
    rank: int = 4
    bias: bool = False
    kind: str = "dense"


def inputs_and_op(
    layers: Sequence[Layer], rows: tuple[int, ...], width: int, dtype: torch.dtype, adapters: torch.dtype
) -> tuple[list[Tensor], Callable[..., tuple[Tensor, ...]]]:
    """x and every plain tensor of the layers, and lora_linear as a function of them; quantized weights are in it."""
    tensors = [random(*rows, width, dtype=dtype)]
    quantized: dict[int, QuantizedWeight] = {}
    for at, layer in enumerate(layers):
        weight = random(layer.outputs, width, dtype=dtype, seed=10 + at, wanted=False) / width**0.5
        if layer.kind != "dense":
            quantized[at] = quantize(weight, layer.kind)  # type: ignore[arg-type]
        tensors.append(weight)
        tensors += [random(layer.outputs, dtype=dtype, seed=20 + at, wanted=False)] * layer.bias
        if layer.rank:
            a = random(layer.rank, width, dtype=adapters, seed=30 + at, wanted=False) / width**0.5
            tensors += [a.requires_grad_(), random(layer.outputs, layer.rank, dtype=adapters, seed=40 + at)]

    def op(x: Tensor, *rest: Tensor, **options: object) -> tuple[Tensor, ...]:
        given, projections = iter(rest), []
        for at, layer in enumerate(layers):
            weight: Tensor | QuantizedWeight = next(given)
            weight = quantized[at].to(x.device) if at in quantized else weight
            bias = next(given) if layer.bias else None
            a, b = (next(given), next(given)) if layer.rank else (None, None)
            projections.append(Projection(weight, bias, a, b, SCALE))
        return lora_linear(x, projections, **options)  # type: ignore[arg-type]

    return tensors, op


@pytest.mark.parametrize(
    "layers",
    [
        [Layer(5)],
        [Layer(5, bias=True), Layer(3, rank=2), Layer(4, rank=0, bias=True)],
        [Layer(4, rank=0)],
        *([Layer(3, kind=kind), Layer(5, rank=1, bias=True, kind=kind)] for kind in FORMATS),
    ],
    ids=str,
)
def test_the_backward_is_the_derivative_of_the_forward(layers: list[Layer]) -> None:
    width = 32 if layers[0].kind == "q4_0" else 6
    tensors, op = inputs_and_op(layers, (2, 3), width, torch.float64, torch.float64)
    check_gradients(op, *tensors)


def test_the_reference_is_the_formula() -> None:
    layers = [Layer(7, bias=True), Layer(5, rank=3, kind="nf4")]
    (x, w0, bias, a0, b0, w1, a1, b1), op = inputs_and_op(layers, (9,), 64, torch.float64, torch.float64)
    y0, y1 = op(x, w0, bias, a0, b0, w1, a1, b1)
    torch.testing.assert_close(y0, x @ w0.T + bias + SCALE * (x @ a0.T) @ b0.T)
    decoded = quantize(w1, "nf4").dequantize(torch.float64)
    torch.testing.assert_close(y1, x @ decoded.T + SCALE * (x @ a1.T) @ b1.T)


@kinds
@training_dtypes
def test_the_reference_is_the_exact_result_rounded(kind: str, dtype: torch.dtype) -> None:
    layers = [Layer(40, bias=True, kind=kind), Layer(24, rank=8, kind=kind), Layer(8, rank=0, kind=kind)]
    tensors, op = inputs_and_op(layers, (3, 11), 64, dtype, dtype)
    check(op, tensors, backend="reference", roundings=ROUNDINGS[dtype])


def test_adapters_in_float32_get_their_gradients_in_float32() -> None:
    tensors, op = inputs_and_op([Layer(40), Layer(24)], (11,), 64, torch.bfloat16, torch.float32)
    outputs = op(*tensors)
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    gradients = torch.autograd.grad(outputs, wanted, [torch.ones_like(y) for y in outputs])
    assert {y.dtype for y in outputs} == {torch.bfloat16}
    assert [gradient.dtype for gradient in gradients] == [torch.bfloat16] + [torch.float32] * 4


@pytest.mark.parametrize("used", [0, 1])
def test_a_projection_that_nothing_depends_on_gives_no_gradient(used: int) -> None:
    tensors, op = inputs_and_op([Layer(5), Layer(3)], (4,), 6, torch.float64, torch.float64)
    x, w0, a0, b0, w1, a1, b1 = tensors
    outputs = op(*tensors)
    found = torch.autograd.grad(outputs[used].sum(), (x, a0, b0, a1, b1), allow_unused=True, materialize_grads=True)
    w, a, b = ((w0, a0, b0), (w1, a1, b1))[used]
    alone = lora_linear(x, [Projection(w, None, a, b, SCALE)])[0].sum()
    expected = torch.autograd.grad(alone, (x, a, b))
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1 + 2 * used : 3 + 2 * used], expected[1:])
    assert not any(gradient.any() for gradient in found[3 - 2 * used : 5 - 2 * used])


def test_what_is_frozen_or_not_wanted_is_neither_changed_nor_computed() -> None:
    tensors, op = inputs_and_op([Layer(5, bias=True)], (4,), 6, torch.float32, torch.float32)
    before = [tensor.detach().clone() for tensor in tensors]
    x, w, bias, a, b = tensors
    torch.autograd.grad(op(*tensors)[0].sum(), (x, a, b))
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))
    op(x.detach(), w, bias, a.detach(), b)[0].sum().backward()
    assert x.grad is None and a.grad is None
    torch.testing.assert_close(b.grad, SCALE * torch.ones(5, 4) * (x @ a.T).sum(0))


def test_what_is_kept_for_the_backward_is_x_and_the_narrow_product() -> None:
    kept: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    x, w = random(50, 64), random(30, 64, wanted=False)
    a, b = random(4, 64), random(30, 4)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        lora_linear(x, [Projection(w, None, a, b), Projection(w, None, a, b)])
        assert sorted(kept) == [(4, 64), (4, 64), (30, 4), (30, 4), (50, 8), (50, 64)]
        kept.clear()
        lora_linear(x, [Projection(w)])
    assert kept == []


def test_no_rows_give_no_rows() -> None:
    tensors, op = inputs_and_op([Layer(5)], (0,), 6, torch.float32, torch.float32)
    y = op(*tensors)[0]
    assert y.shape == (0, 5)
    da = torch.autograd.grad(y.sum(), tensors[2])[0]
    assert da.shape == (4, 6) and not da.any()


def test_what_does_not_go_together_is_said() -> None:
    x, w = torch.zeros(2, 6), torch.zeros(5, 6)
    a, b = torch.zeros(3, 6), torch.zeros(5, 3)
    with pytest.raises(ValueError, match=r"an input of width 7 for a weight \(5, 6\); it takes 6"):
        lora_linear(torch.zeros(2, 7), [Projection(w)])
    with pytest.raises(ValueError, match=r"a weight of torch.float32 for an input of torch.bfloat16"):
        lora_linear(x.bfloat16(), [Projection(w)])
    with pytest.raises(ValueError, match=r"a tensor \(5, 2\) for a weight \(5, 6\) has to be \(5, 3\)"):
        lora_linear(x, [Projection(w, None, a, b[:, :2])])
    with pytest.raises(ValueError, match="has both a and b, or neither"):
        lora_linear(x, [Projection(w, None, a)])
    with pytest.raises(ValueError, match="a bias that requires a gradient, and is frozen here"):
        lora_linear(x, [Projection(w, torch.zeros(5, requires_grad=True))])


INTERPRETED = {
    "one": [Layer(37)],
    "three": [Layer(40, bias=True), Layer(17, rank=3), Layer(9, rank=20, bias=True)],
    "four": [Layer(16), Layer(7), Layer(20), Layer(5)],
    "mixed": [Layer(8, rank=0), Layer(20, bias=True), Layer(33, rank=2)],
}


@pytest.mark.interpreted
@kinds
@pytest.mark.parametrize("layers", INTERPRETED.values(), ids=INTERPRETED)
@interpreted_dtypes
def test_the_kernels_are_the_reference(kind: str, layers: list[Layer], dtype: torch.dtype) -> None:
    layers = [Layer(layer.outputs, layer.rank, layer.bias, kind) for layer in layers]
    width = 77 if kind in ("dense", "int8", "fp8", "nf4") else 96
    tensors, op = inputs_and_op(layers, (45,), width, dtype, dtype)
    check(op, tensors, roundings=ROUNDINGS[dtype])


@pytest.mark.interpreted
def test_the_kernels_take_kinds_that_differ_and_rows_that_lie_apart() -> None:
    layers = [Layer(20, kind="int8"), Layer(9), Layer(12, kind="q4_0"), Layer(7, kind="nf4")]
    (x, *rest), op = inputs_and_op(layers, (20,), 64, torch.float32, torch.float32)
    apart = torch.cat([x.detach(), x.detach()], 1).requires_grad_()
    check(lambda wide, *others, **options: op(wide[:, 64:], *others, **options), [apart, *rest], roundings=64.0)


@pytest.mark.interpreted
@pytest.mark.parametrize("used", [[0], [1], [0, 2]], ids=str)
def test_the_kernels_skip_projections_that_nothing_depends_on(used: list[int]) -> None:
    tensors, op = inputs_and_op([Layer(9), Layer(5, rank=2), Layer(6, rank=0)], (20,), 16, torch.float32, torch.float32)

    def some(*given: Tensor, **options: object) -> list[Tensor]:
        outputs = op(*given, **options)
        unused = sum((tensor.sum() * 0 for tensor in given[1:]), torch.zeros(()))  # every input has a gradient
        return [outputs[at] + unused for at in used]

    check(some, tensors, roundings=64.0)


@pytest.mark.interpreted
@pytest.mark.parametrize("kind", ["nf4", "q4_0"])
def test_a_weight_decoded_before_the_product_gives_what_the_loop_gives(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sottovoce_kernels.lora_linear import kernel

    tensors, op = inputs_and_op([Layer(20, kind=kind)], (30,), 64, torch.float32, torch.float32)
    within = op(*tensors, backend="triton")
    monkeypatch.setattr(kernel, "DECODED_IN_LOOP", {**DECODED_IN_LOOP, kind: 0})
    torch.testing.assert_close(op(*tensors, backend="triton"), within)


@pytest.mark.interpreted
def test_sums_over_rows_are_the_same_in_parts() -> None:
    rows = 2 * 128 + 5
    assert splits(rows, 1) == 2
    tensors, op = inputs_and_op([Layer(6)], (rows,), 8, torch.float32, torch.float32)
    check(op, tensors, roundings=64.0)


def test_every_gpu_gets_the_tiles_of_the_newest_kind_that_it_is_not_older_than() -> None:
    wanted = {75: 80, 80: 80, 86: 120, 89: 120, 90: 90, 100: 90, 120: 120, 121: 120}
    assert {capability: tiles_for(capability) for capability in wanted} == {
        c: TILES[least] for c, least in wanted.items()
    }


def test_few_rows_get_tiles_that_leave_no_multiprocessor_idle() -> None:
    tile = TILES[90].project
    assert [tile.filling(rows, 9, 64).rows for rows in (16384, 2048, 64)] == [256, 128, 64]


def compiled(
    kind: str,
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype = torch.bfloat16,
    rank: int = 16,
    rows: int = 32768,
) -> dict[str, Artifact]:
    """What q, k and v of a small model launch on `target`, forward and backward, by the kernel's name.

    Of a quantized kind only the products with its weights: the others are those of dense ones."""
    from sottovoce_kernels.lora_linear import kernel

    monkeypatch.setattr(kernel, "capability_of", lambda device: target.capability)

    def weight(outputs: int) -> Tensor | QuantizedWeight:
        if kind == "dense":
            return meta(outputs, 576, dtype=dtype)
        return quantize(torch.zeros(outputs, 576), kind).to("meta")  # type: ignore[arg-type]

    projections = [
        Projection(weight(n), meta(n, dtype=dtype), meta(rank, 576), meta(n, rank), SCALE) for n in (576, 192, 192)
    ]
    x = meta(rows, 576, dtype=dtype)
    with recorded() as launches:
        outputs, s = kernel.forward(x, projections)
        kernel.backward(outputs, x, s, projections, True, [(True, True)] * 3)
    chosen = [launch for launch in launches if kind == "dense" or launch.constants.get("KIND") == kind]
    assert {launch.kernel.__name__ for launch in launches} - {"decode"} == PRODUCTS
    artifacts = [launch.compile(target) for launch in chosen]
    assert [fault for artifact in artifacts for fault in artifact.faults()] == []
    return {artifact.kernel: artifact for artifact in artifacts if artifact.kernel != "decode"}


@all_targets
@kinds
def test_the_kernels_compile_for_tensor_cores_without_spills(
    kind: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = compiled(kind, target, monkeypatch, rows=int(min(32768, DECODED_IN_LOOP[kind])))
    within = {"project", "input_gradient"} if kind in GRADIENT_IN_LOOP else {"project"}
    assert artifacts.keys() == (PRODUCTS if kind == "dense" else within)
    for name, artifact in artifacts.items():
        assert tensor_core_instructions(artifact) > 0, name
        if target.capability == 90:
            assert "HGMMA" in artifact.sass, f"{name} has no wgmma"
        assert "LDGSTS" in artifact.sass, f"{name} waits for its loads"


@all_targets
def test_products_in_float32_compile_for_tensor_cores_without_spills(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = compiled("dense", target, monkeypatch, torch.float32)
    assert all(tensor_core_instructions(artifact) > 0 for artifact in artifacts.values())


@all_targets
def test_the_smaller_tiles_of_few_rows_compile_without_spills(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = compiled("dense", target, monkeypatch, rows=256)
    assert all(tensor_core_instructions(artifact) > 0 for artifact in artifacts.values())


@all_targets
def test_the_highest_ranks_compile_without_spills(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled("dense", target, monkeypatch, rank=256)


@kinds
@training_dtypes
@pytest.mark.parametrize("rows", [1, 300, 2048])
def test_on_a_gpu_the_kernels_are_the_reference(kind: str, dtype: torch.dtype, rows: int, gpu: torch.device) -> None:
    layers = [Layer(576, 16, True, kind), Layer(192, 16, False, kind), Layer(200, 40, True, kind)]
    tensors, op = inputs_and_op(layers, (rows,), 576, dtype, dtype)
    check(op, tensors, device=gpu, roundings=ROUNDINGS[dtype])
