"""The Triton kernel of linear_cross_entropy: interpreted against the reference, compiled for three GPUs, run on one."""

import pytest
import torch
from torch import Tensor

from sottovoce_kernels.linear_cross_entropy import linear_cross_entropy, reference
from sottovoce_kernels.linear_cross_entropy.rule import Rule

RULES = pytest.mark.parametrize(
    "rule",
    [Rule(), Rule(label_smoothing=0.1), Rule(softcap=3.0), Rule(label_smoothing=0.1, softcap=3.0)],
    ids=["plain", "smoothed", "capped", "both"],
)
BIASED = pytest.mark.parametrize("biased", [False, True], ids=["", "biased"])


def logits(rows: int, vocabulary: int, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Logits with a large value here and there, labels and a bias."""
    generator = torch.Generator().manual_seed(vocabulary)
    values = torch.randn(rows, vocabulary, generator=generator) * 4
    labels = torch.randint(vocabulary, (rows,), generator=generator)
    return values.to(device, dtype), labels.to(device), torch.randn(vocabulary, generator=generator).to(device, dtype)


@pytest.mark.interpreted
@RULES
@BIASED
@pytest.mark.parametrize("vocabulary", [1, 16, 37, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_interpreted_kernel_equals_the_reference(
    rule: Rule, biased: bool, vocabulary: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sottovoce_kernels.linear_cross_entropy import kernel

    monkeypatch.setattr(kernel, "BLOCK", 16)  # several blocks, and a tail
    ours, labels, bias = logits(3, vocabulary, dtype)
    theirs = ours.clone()
    given = bias if biased else None
    loss = kernel.differentiate(ours, labels, given, rule, True)
    torch.testing.assert_close(loss, reference.differentiate(theirs, labels, given, rule, True))
    torch.testing.assert_close(ours, theirs, rtol=2e-3 if dtype == torch.float16 else 1e-5, atol=1e-6)


@pytest.mark.interpreted
def test_interpreted_kernel_leaves_logits_alone_where_no_gradient_is_wanted() -> None:
    from sottovoce_kernels.linear_cross_entropy import kernel

    ours, labels, _ = logits(3, 20, torch.float32)
    before = ours.clone()
    loss = kernel.differentiate(ours, labels, None, Rule(), False)
    assert torch.equal(ours, before)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(before, labels, reduction="sum"))


@pytest.mark.interpreted
def test_interpreted_operation_equals_the_reference_with_all_its_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((11, 8), (37, 8), (37,)))
    labels = torch.randint(37, (11,), generator=generator)
    labels[:4] = -100
    found = []
    for backend in ("triton", "reference"):
        given = [one.clone().requires_grad_() for one in (hidden, weight, bias)]
        options = {"bias": given[2], "label_smoothing": 0.1, "softcap": 5.0, "chunk": 3, "backend": backend}
        loss = linear_cross_entropy(given[0], given[1], labels, **options)  # type: ignore[arg-type]
        found.append((loss, *torch.autograd.grad(loss, given)))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    ("vocabulary", "rule", "biased"),
    [(51_865, Rule(), False), (51_865, Rule(0.1, 3.0), True), (49_152, Rule(), False), (32, Rule(0.1, 3.0), True)],
)
def test_kernel_compiles_for_every_target_without_faults(vocabulary: int, rule: Rule, biased: bool) -> None:
    pytest.importorskip("triton", reason="needs Triton: pip install 'sottovoce-compiler[gpu]'")
    from sottovoce_kernels.aot import TARGETS, recorded
    from sottovoce_kernels.linear_cross_entropy import kernel

    padded = torch.empty(4, -(-vocabulary // 64) * 64, dtype=torch.bfloat16, device="meta")[:, :vocabulary]
    bias = torch.empty(vocabulary, dtype=torch.bfloat16, device="meta") if biased else None
    with recorded() as launches:
        kernel.differentiate(padded, torch.empty(4, dtype=torch.int64, device="meta"), bias, rule, True)
    (launch,) = launches
    for target in TARGETS.values():
        artifact = launch.compile(target)
        assert artifact.faults() == ()
        assert artifact.registers <= 128  # two blocks of 256 threads on a multiprocessor
        if vocabulary > 32:
            assert "STG.E.128" in artifact.sass and "LDG.E.128" in artifact.sass


@RULES
@BIASED
@pytest.mark.parametrize("vocabulary", [1000, 51_865, 49_152])
def test_kernel_equals_the_reference_on_a_gpu(gpu: torch.device, rule: Rule, biased: bool, vocabulary: int) -> None:
    from sottovoce_kernels.linear_cross_entropy import kernel

    ours, labels, bias = logits(64, vocabulary, torch.bfloat16, "cuda")
    theirs, given = ours.clone(), bias if biased else None
    loss = kernel.differentiate(ours, labels, given, rule, True)
    torch.testing.assert_close(loss, reference.differentiate(theirs, labels, given, rule, True))
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-6)


def test_operation_on_a_gpu_is_as_good_as_the_reference_on_a_cpu(gpu: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(1000, 192, generator=generator), torch.randn(51_865, 192, generator=generator) * 0.1
    labels = torch.randint(51_865, (1000,), generator=generator)
    labels[::5] = -100
    found = []
    for device in ("cuda", "cpu"):
        given = [one.to(device, torch.bfloat16).requires_grad_() for one in (hidden, weight)]
        loss = linear_cross_entropy(*given, labels.to(device))
        found.append([one.cpu().float() for one in (loss, *torch.autograd.grad(loss, given))])
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=0.0)
    for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
        assert (ours - theirs).norm() < 1e-2 * theirs.norm()
