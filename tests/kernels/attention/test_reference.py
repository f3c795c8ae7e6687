"""attention on a CPU: against one whole matrix of scores, against finite differences, and segments apart."""

import pytest
import torch
from torch import Tensor

from sottovoce_kernels.attention import attention, reference
from sottovoce_kernels.attention.mask import Mask
from sottovoce_kernels.segments import Segments

from .cases import CASES, Case, truth

all_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def ours(case: Case, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    return attention(q, k, v, *case.segments(), key_bias=bias, **case.options)  # type: ignore[arg-type]


@all_cases
def test_result_and_gradients_are_those_of_one_matrix_of_scores(case: Case) -> None:
    q, k, v, bias = case.inputs(torch.float64)
    given = tuple(one.requires_grad_() for one in (q, k, v))
    found, expected = ours(case, *given, bias), truth(case, *given, bias)
    torch.testing.assert_close(found, expected)
    grad = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.autograd.grad(found, given, grad), torch.autograd.grad(expected, given, grad))


@pytest.mark.parametrize(
    "case",
    [
        Case((4, 1, 3), width=2, heads=2, shared=1),
        Case((4, 2), width=2, window=2, softcap=1.5, biased=True),
        Case((2, 3), keys=(4, 1), width=3, causal=False, biased=True),
    ],
)
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    q, k, v, bias = case.inputs(torch.float64)
    given = tuple(one.requires_grad_() for one in (q, k, v))
    assert torch.autograd.gradcheck(lambda q, k, v: ours(case, q, k, v, bias), given)


@pytest.mark.parametrize("case", [Case((150, 70, 200), heads=6, shared=2), Case((200, 65), window=90, softcap=9.0)])
def test_blocks_of_queries_leave_no_seams(case: Case) -> None:
    assert min(max(case.lengths), 130) > 2 * reference.BLOCK
    q, k, v, bias = case.inputs(torch.float64)
    given = tuple(one.requires_grad_() for one in (q, k, v))
    found, expected = ours(case, *given, bias), truth(case, *given, bias)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), given), torch.autograd.grad(expected.square().sum(), given)
    )


@pytest.mark.parametrize(
    "case",
    [
        Case((260, 20, 300), causal=False, heads=4, shared=2),
        Case((260, 20), keys=(70, 30), causal=False, biased=True),
        Case((20, 1030, 9), heads=2, shared=1, width=8),
    ],
)
def test_segments_of_torchs_own_backward_and_of_ours_lie_side_by_side(case: Case) -> None:
    queries, keys = case.segments()
    mask = Mask(case.causal, case.scale)
    assert {piece.long for piece in reference.pieces(queries, keys or queries, mask)} == {True, False}
    q, k, v, bias = case.inputs(torch.float64)
    given = tuple(one.requires_grad_() for one in (q, k, v))
    found, expected = ours(case, *given, bias), truth(case, *given, bias)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), given), torch.autograd.grad(expected.square().sum(), given)
    )


@pytest.mark.parametrize("case", [CASES["grouped"], Case((150, 70), heads=6, shared=2), Case((90, 5), causal=False)])
def test_bfloat16_is_as_close_to_the_truth_as_torch_in_bfloat16(case: Case) -> None:
    q, k, v, _ = case.inputs(torch.bfloat16)
    found, expected, theirs = [], [], []
    for results, dtype in ((found, torch.bfloat16), (expected, torch.float64), (theirs, torch.bfloat16)):
        given = tuple(one.to(dtype).requires_grad_() for one in (q, k, v))
        out = ours(case, *given, None) if results is found else truth(case, *given, None)
        results += [out, *torch.autograd.grad(out.square().sum(), given)]
    for mine, true, other in zip(found, expected, theirs, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - true).norm() <= (other - true).norm() * 1.2


@pytest.mark.parametrize("name", ["causal", "not causal", "cross", "window", "bias, causal, window, softcap"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_equals_each_alone(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    q, k, v, bias = case.inputs(dtype)
    whole = ours(case, q, k, v, bias)
    queries, keys = case.segments()
    for (begin, end), (key_begin, key_end) in zip(queries.bounds(), (keys or queries).bounds(), strict=True):
        alone = attention(
            q[begin:end],
            k[key_begin:key_end],
            v[key_begin:key_end],
            Segments.of([end - begin]),
            Segments.of([key_end - key_begin]),
            key_bias=None if bias is None else bias[key_begin:key_end],
            **case.options,  # type: ignore[arg-type]
        )
        assert torch.equal(whole[begin:end], alone)


@all_cases
def test_changing_one_segment_leaves_the_others_as_they_were_to_the_bit(case: Case) -> None:
    results = []
    for change in (0.0, 1.0):
        q, k, v, bias = case.inputs(torch.float32)
        queries, keys = case.segments()
        row, key_row = queries.lengths[0], (keys or queries).lengths[0]
        for tensor, rows in ((q, row), (k, key_row), (v, key_row)):
            tensor[:rows] += change
        given = tuple(one.requires_grad_() for one in (q, k, v))
        out = ours(case, *given, bias)
        dq, dk, dv = torch.autograd.grad(out.square().sum(), given)
        assert all(torch.isfinite(one).all() for one in (out, dq, dk, dv))
        results.append((out[:row], (out[row:], dq[row:], dk[key_row:], dv[key_row:])))
    (own, others), (own_after, others_after) = results
    assert all(torch.equal(before, after) for before, after in zip(others, others_after, strict=True))
    assert not torch.equal(own, own_after)


def test_parts_of_one_projection_are_taken_as_they_lie() -> None:
    case = CASES["grouped"]
    q, k, v, _ = case.inputs(torch.float32)
    joined = torch.cat([q.flatten(1), k.flatten(1), v.flatten(1)], 1).requires_grad_()
    parts = joined.split([q[0].numel(), k[0].numel(), v[0].numel()], 1)
    views = [part.unflatten(1, (-1, case.width)) for part in parts]
    assert not views[0].is_contiguous()
    apart = tuple(one.requires_grad_() for one in (q, k, v))
    torch.testing.assert_close(ours(case, *views, None), ours(case, *apart, None))
    (whole,) = torch.autograd.grad(ours(case, *views, None).sum(), joined)
    pieces = torch.autograd.grad(ours(case, *apart, None).sum(), apart)
    torch.testing.assert_close(whole, torch.cat([piece.flatten(1) for piece in pieces], 1))


def test_nothing_is_kept_for_the_backward_but_the_inputs() -> None:
    q, k, v, _ = CASES["grouped"].inputs(torch.float32)
    given = tuple(one.requires_grad_() for one in (q, k, v))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        ours(CASES["grouped"], *given, None)
    assert {tensor.data_ptr() for tensor in kept} == {tensor.data_ptr() for tensor in given}


def test_a_bias_of_zeros_changes_nothing() -> None:
    case = CASES["not causal"]
    q, k, v, _ = case.inputs(torch.float32)
    assert torch.equal(ours(case, q, k, v, torch.zeros(len(k))), ours(case, q, k, v, None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": torch.zeros(5, 2, 8)}, r"k \(5, 2, 8\)"),
        ({"q": torch.zeros(5, 3, 16)}, "H a multiple of Hk"),
        ({"v": torch.zeros(5, 2, 16, dtype=torch.float16)}, "v of torch.float16"),
        ({"queries": Segments.of([4])}, "segments of 4 rows in all, and 5 rows"),
        ({"keys": Segments.of([2, 3])}, "1 segments of queries and 2 of keys"),
        ({"k": torch.zeros(6, 2, 16), "v": torch.zeros(6, 2, 16), "keys": Segments.of([6])}, "different length"),
        ({"causal": False, "window": 3}, "window 3"),
        ({"window": 0}, "window 0"),
        ({"softcap": -1.0}, "softcap -1.0"),
        ({"key_bias": torch.zeros(4)}, r"key_bias \(4,\)"),
        ({"key_bias": torch.zeros(5, dtype=torch.float16)}, "of float32"),
    ],
)
def test_what_does_not_go_together_is_named(changes: dict[str, object], message: str) -> None:
    q, k, v = torch.zeros(5, 4, 16), torch.zeros(5, 2, 16), torch.zeros(5, 2, 16)
    given = {"q": q, "k": k, "v": v, "queries": Segments.of([5]), "causal": True, "scale": 1.0} | changes
    with pytest.raises(ValueError, match=message):
        attention(**given)  # type: ignore[arg-type]
