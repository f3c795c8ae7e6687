"""The Triton kernels of attention: interpreted against the reference, compiled for three GPUs, run on one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sottovoce_kernels.attention import attention, reference
from sottovoce_kernels.attention.mask import Mask
from sottovoce_kernels.segments import Segments

from .cases import CASES, Case, truth

all_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)

GPU_CASES = {
    "135M": Case((300, 17, 1, 129, 511), heads=9, shared=3, width=64, scale=0.125),
    "Whisper's encoder": Case((1500, 700), heads=4, shared=4, width=64, scale=0.125, causal=False, biased=True),
    "Whisper's cross-attention": Case((33, 5), keys=(700, 420), heads=4, shared=4, width=64, scale=0.125, causal=False),
    "Gemma 3": Case((900, 40), heads=4, shared=1, width=256, scale=0.0625, window=512),
    "Gemma 2": Case((300, 40), heads=4, shared=2, width=256, scale=0.0625, window=128, softcap=50.0),
    "heads of 80": Case((300, 40), heads=4, shared=2, width=80, scale=0.11),
    "heads of 96": Case((300, 40), heads=4, shared=2, width=96, scale=0.1, window=100),
    "heads of 128": Case((300, 40), heads=4, shared=2, width=128, scale=0.09),
    **{name: replace(case, width=32) for name, case in CASES.items()},
}


def step(case: Case, dtype: torch.dtype, backend: str, device: str = "cpu") -> list[Tensor]:
    """Result and gradients of q, k and v."""
    q, k, v, bias = case.inputs(dtype)
    given = tuple(one.to(device).requires_grad_() for one in (q, k, v))
    moved = None if bias is None else bias.to(device)
    out = attention(*given, *case.segments(device), key_bias=moved, backend=backend, **case.options)  # type: ignore[arg-type]
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(device, dtype)
    return [out.detach(), *torch.autograd.grad(out, given, grad)]


@pytest.mark.interpreted
@all_cases
def test_interpreted_kernels_equal_the_reference(case: Case) -> None:
    ours, theirs = (step(case, torch.float32, backend) for backend in ("triton", "reference"))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.interpreted
@pytest.mark.parametrize("name", ["grouped", "bias, causal, window, softcap"])
def test_interpreted_kernels_equal_the_reference_in_float16(name: str) -> None:
    ours, theirs = (step(CASES[name], torch.float16, backend) for backend in ("triton", "reference"))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).float().norm() < 2e-3 * other.float().norm()  # four roundings to 11 bits


@pytest.mark.interpreted
@pytest.mark.parametrize(("queries", "keys"), [(16, 32), (32, 16)])
@pytest.mark.parametrize("case", [Case((70, 33), window=40), Case((70, 33)), Case((40, 3), keys=(70, 9), causal=False)])
def test_interpreted_kernels_have_no_seams_where_tiles_are_not_square(
    case: Case, queries: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sottovoce_kernels.attention import kernel
    from sottovoce_kernels.attention.tiles import Tile

    monkeypatch.setattr(kernel, "tile", lambda name, q: Tile(queries, keys, 4, 1))
    ours, theirs = (step(case, torch.float32, backend) for backend in ("triton", "reference"))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.interpreted
def test_interpreted_kernels_give_the_logarithms_of_sums() -> None:
    from sottovoce_kernels.attention import kernel

    case = CASES["grouped"]
    q, k, v, _ = case.inputs(torch.float32)
    segments, _ = case.segments()
    _, (_, sums) = kernel.forward(q, k, v, segments, segments, Mask(True, case.scale), None)
    scores = torch.einsum("id,jd->ij", q[:18, 3], k[:18, 1]) * case.scale
    expected = scores.masked_fill(torch.ones(18, 18).triu(1).bool(), -torch.inf).logsumexp(1)
    torch.testing.assert_close(sums[3, :18] * 0.6931471805599453, expected)


def launches(width: int, capability: tuple[int, int], options: Mask, biased: bool, patch: pytest.MonkeyPatch) -> list:
    """What the launchers would have launched for heads of `width` on a GPU of this capability."""
    from sottovoce_kernels.aot import recorded
    from sottovoce_kernels.attention import kernel, tiles

    patch.setattr(kernel, "tile", lambda name, q: tiles.tile_for(name, q.shape[2], capability))
    segments = Segments.of([200, 56])
    q, grad = (torch.empty(256, 4, width, dtype=torch.bfloat16, device="meta") for _ in range(2))
    k, v = (torch.empty(256, 2, width, dtype=torch.bfloat16, device="meta") for _ in range(2))
    bias = torch.empty(256, device="meta") if biased else None
    with recorded() as found:
        _, kept = kernel.forward(q, k, v, segments, segments, options, bias)
        kernel.backward(grad, q, k, v, kept, segments, segments, options, bias)
    return found


@pytest.mark.parametrize("name", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize(
    ("width", "options", "biased"),
    [
        (64, Mask(True, 0.1), False),
        (64, Mask(False, 0.1), True),
        (80, Mask(True, 0.1, window=64, softcap=50.0), True),
        (128, Mask(True, 0.1), False),
        (256, Mask(True, 0.1, window=64, softcap=50.0), True),
    ],
    ids=["64, causal", "64, not causal", "80, all masks", "128, causal", "256, all masks"],
)
def test_kernels_compile_for_every_target_without_faults_and_on_tensor_cores(
    width: int, name: str, options: Mask, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="needs Triton: pip install 'sottovoce-compiler[gpu]'")
    from sottovoce_kernels.aot import TARGETS, tensor_core_instructions

    target = TARGETS[name]
    for launch in launches(width, divmod(target.capability, 10), options, biased, monkeypatch):
        artifact = launch.compile(target)
        assert artifact.faults() == ()
        assert tensor_core_instructions(artifact) > 0
        if name == "sm_90" and not (width == 256 and artifact.kernel == "_backward_keys"):  # no room for 64 keys
            assert "wgmma" in artifact.ptx and "HGMMA" in artifact.sass


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", GPU_CASES.values(), ids=GPU_CASES)
def test_kernels_are_as_close_to_the_truth_as_the_reference_on_a_gpu(
    gpu: torch.device, case: Case, dtype: torch.dtype
) -> None:
    ours, theirs = step(case, dtype, "triton", "cuda"), step(case, dtype, "reference")
    q, k, v, bias = case.inputs(dtype)
    given = tuple(one.double().requires_grad_() for one in (q, k, v))
    out = truth(case, *given, bias)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(dtype).double()
    for mine, other, true in zip(ours, theirs, [out, *torch.autograd.grad(out, given, grad)], strict=True):
        assert (mine.cpu() - true).norm() <= (other - true).norm() * 1.3 + 1e-3 * true.norm()


def test_gradients_are_the_same_each_time_on_a_gpu(gpu: torch.device) -> None:
    first, second = (step(GPU_CASES["135M"], torch.bfloat16, "triton", "cuda") for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_segments_do_not_touch_each_other_on_a_gpu(gpu: torch.device) -> None:
    case = GPU_CASES["135M"]
    results = []
    for change in (0.0, 1.0):
        q, k, v, _ = (one if one is None else one.to("cuda") for one in case.inputs(torch.bfloat16))
        k[:300] += change
        results.append(attention(q, k, v, *case.segments("cuda"), backend="triton", **case.options))  # type: ignore[arg-type]
    assert torch.equal(results[0][300:], results[1][300:])
    assert not torch.equal(results[0][:300], results[1][:300])


def test_the_reference_on_a_gpu_is_what_it_is_on_a_cpu(gpu: torch.device) -> None:
    ours, theirs = (step(GPU_CASES["135M"], torch.float32, "reference", device) for device in ("cuda", "cpu"))
    assert reference.BLOCK < 300
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-3, atol=1e-4)
