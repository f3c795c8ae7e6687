"""linear_cross_entropy on a CPU: against torch's own loss over whole logits, and against finite differences."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sottovoce_kernels.linear_cross_entropy import linear_cross_entropy
from sottovoce_kernels.linear_cross_entropy.rule import chunk_rows

KINDS = pytest.mark.parametrize(
    ("smoothing", "softcap", "biased"),
    [(0.0, None, False), (0.0, None, True), (0.1, None, True), (0.0, 3.0, True), (0.2, 2.0, False), (0.2, 2.0, True)],
)


def inputs(rows: int, width: int, vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden, weight, bias and labels, a third of which are left out."""
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64) / width**0.5
    bias = torch.randn(vocabulary, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocabulary, (rows,), generator=generator)
    labels[::3] = -100
    return *(one.to(dtype).requires_grad_() for one in (hidden, weight, bias)), labels  # type: ignore[return-value]


def whole(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float, softcap: float | None):
    """The loss as torch computes it, from logits that are there in one piece."""
    logits = functional.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")


@KINDS
def test_gradients_are_those_of_finite_differences(smoothing: float, softcap: float | None, biased: bool) -> None:
    hidden, weight, bias, labels = inputs(7, 3, 5, torch.float64)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given = bias if biased else None
        return linear_cross_entropy(
            hidden, weight, labels, bias=given, label_smoothing=smoothing, softcap=softcap, chunk=2
        )

    arguments = (hidden, weight, bias if biased else bias.detach())
    assert torch.autograd.gradcheck(loss, arguments)


@KINDS
@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
def test_loss_and_gradients_are_those_of_whole_logits(
    smoothing: float, softcap: float | None, biased: bool, chunk: int | None
) -> None:
    hidden, weight, bias, labels = inputs(13, 8, 31, torch.float64)
    given = (hidden, weight, bias) if biased else (hidden, weight)
    kept = bias if biased else None
    ours = linear_cross_entropy(
        hidden, weight, labels, bias=kept, label_smoothing=smoothing, softcap=softcap, chunk=chunk
    )
    truth = whole(hidden, weight, kept, labels, smoothing, softcap)
    torch.testing.assert_close(ours, truth)
    torch.testing.assert_close(torch.autograd.grad(ours * 0.5, given), torch.autograd.grad(truth * 0.5, given))


def test_blocks_within_a_chunk_leave_no_seams() -> None:
    hidden, weight, bias, labels = inputs(40, 4, 70_001, torch.float32)
    ours = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels, bias=bias), (hidden, weight, bias))
    truth = torch.autograd.grad(whole(hidden, weight, bias, labels, 0.0, None), (hidden, weight, bias))
    torch.testing.assert_close(ours, truth)


def test_bfloat16_is_as_close_to_the_truth_as_whole_logits_in_bfloat16() -> None:
    hidden, weight, _, labels = inputs(96, 64, 500, torch.float32)
    truth = whole(hidden, weight, None, labels, 0.0, None)
    (true_gradient,) = torch.autograd.grad(truth, hidden)
    narrow, head = hidden.bfloat16().detach().requires_grad_(), weight.bfloat16().detach()
    ours = linear_cross_entropy(narrow, head, labels)
    theirs = functional.cross_entropy(functional.linear(narrow, head).float(), labels, reduction="sum")
    (our_gradient,), (their_gradient,) = (torch.autograd.grad(loss, narrow) for loss in (ours, theirs))
    assert ours.dtype == torch.float32 and our_gradient.dtype == torch.bfloat16
    assert (ours - truth).abs() <= (theirs - truth).abs() * 1.1 + 1e-3
    assert (our_gradient - true_gradient).norm() <= (their_gradient - true_gradient).norm() * 1.1


def test_rows_without_a_label_cost_nothing_and_have_no_gradient() -> None:
    hidden, weight, _, labels = inputs(12, 4, 9, torch.float64)
    with torch.no_grad():
        hidden[::3] = float("nan")  # would spoil the sum if they took part
    loss = linear_cross_entropy(hidden, weight, labels)
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert torch.isfinite(loss)
    assert gradient[::3].abs().max() == 0 and gradient[1::3].abs().min() > 0


def test_without_any_label_loss_and_gradients_are_zero() -> None:
    hidden, weight, _, labels = inputs(6, 4, 9, torch.float64)
    loss = linear_cross_entropy(hidden, weight, labels.fill_(-7), ignore_index=-7)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    assert loss.item() == 0.0
    assert all(gradient.abs().max() == 0 for gradient in gradients)


def test_no_rows_are_a_loss_of_zero() -> None:
    hidden, weight, _, labels = inputs(6, 4, 9, torch.float64)
    loss = linear_cross_entropy(hidden[:0], weight, labels[:0])
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, hidden)[0].abs().max() == 0


def test_a_frozen_weight_is_saved_nowhere_and_gets_no_gradient() -> None:
    hidden, weight, bias, labels = inputs(12, 4, 900, torch.float32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        linear_cross_entropy(hidden, weight.detach(), labels, bias=bias.detach()).backward()
    assert weight.grad is None and bias.grad is None
    assert max(tensor.numel() for tensor in kept) <= hidden.numel()


def test_evaluation_gives_the_same_loss_and_no_graph() -> None:
    hidden, weight, bias, labels = inputs(12, 4, 9, torch.float32)
    trained = linear_cross_entropy(hidden, weight, labels, bias=bias, softcap=4.0)
    with torch.no_grad():
        evaluated = linear_cross_entropy(hidden, weight, labels, bias=bias, softcap=4.0)
    assert not evaluated.requires_grad
    assert evaluated.item() == trained.item()


def test_backward_twice_gives_the_same_gradient_twice() -> None:
    hidden, weight, _, labels = inputs(9, 4, 9, torch.float32)
    loss = linear_cross_entropy(hidden, weight, labels)
    first = torch.autograd.grad(loss, hidden, torch.tensor(0.25), retain_graph=True)[0]
    second = torch.autograd.grad(loss, hidden, torch.tensor(0.25))[0]
    assert torch.equal(first, second)


@pytest.mark.parametrize(("device", "multiple", "budget"), [("cpu", 16, 64 * 2**20), ("cuda", 128, 256 * 2**20)])
@pytest.mark.parametrize("vocabulary", [100, 49_152, 151_936, 262_144])
@pytest.mark.parametrize("rows", [1, 255, 2048, 16_384])
def test_chunks_fit_their_budget_and_leave_no_small_rest(
    device: str, multiple: int, budget: int, vocabulary: int, rows: int
) -> None:
    chunk = chunk_rows(rows, vocabulary, torch.bfloat16, torch.device(device))
    chunks = -(-rows // chunk)
    assert chunk * vocabulary * 2 <= budget
    assert chunk % multiple == 0
    assert chunks * chunk - rows < multiple * chunks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([0, 9, -100])}, "label 9 for a vocabulary of 9"),
        ({"labels": torch.tensor([0, -1, 2])}, "label -1"),
        ({"labels": torch.tensor([0, 1])}, r"labels \(2,\)"),
        ({"labels": torch.tensor([0, 1, 2], dtype=torch.int32)}, "int64"),
        ({"weight": torch.zeros(9, 5)}, r"weight \(9, 5\)"),
        ({"weight": torch.zeros(9, 4, dtype=torch.float16)}, "float16"),
        ({"bias": torch.zeros(8)}, r"a bias \(8,\)"),
        ({"label_smoothing": 1.0}, "label_smoothing 1.0"),
        ({"softcap": 0.0}, "softcap 0.0"),
        ({"chunk": 0}, "chunk 0"),
    ],
)
def test_what_does_not_go_together_is_named(changes: dict[str, object], message: str) -> None:
    given = {"hidden": torch.zeros(3, 4), "weight": torch.zeros(9, 4), "labels": torch.tensor([0, 1, 2])} | changes
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**given)  # type: ignore[arg-type]
