"""rope in four tiers: grouped heads, partial rotation, positions in any order, heads that lie apart."""

import pytest
import torch
from tiers import all_targets, check, check_compiles, check_gradients, interpreted_dtypes, meta, random, training_dtypes

from sottovoce_kernels.aot import Target
from sottovoce_kernels.rope import rope

# tokens, heads of q, heads of k, head's width, rotated width
SHAPES = [(1, 1, 1, 2, 2), (7, 9, 3, 16, 16), (5, 4, 2, 20, 12), (3, 2, 2, 10, 6), (0, 2, 1, 8, 8)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
orders = pytest.mark.parametrize("chosen", [False, True], ids=["in-order", "by-positions"])


def inputs(shape: tuple[int, ...], dtype: torch.dtype, chosen: bool = False) -> list[torch.Tensor | None]:
    """q, k, cos, sin, positions; angles in float32 or wider."""
    tokens, heads, kv_heads, width, rotated = shape
    angles = random(tokens + 5 if chosen else tokens, rotated // 2, dtype=torch.float64, seed=3, wanted=False)
    tables = [table.to(torch.promote_types(dtype, torch.float32)) for table in (angles.cos(), angles.sin())]
    order = torch.randint(0, tokens + 5, (tokens,), generator=torch.Generator().manual_seed(4)) if chosen else None
    return [random(tokens, heads, width, dtype=dtype), random(tokens, kv_heads, width, dtype=dtype), *tables, order]


def turned(*given: torch.Tensor, **options: str) -> tuple[torch.Tensor, torch.Tensor]:
    return rope(*given[:4], positions=given[4], **options)  # type: ignore[arg-type]


@orders
def test_the_backward_is_the_derivative_of_the_forward(chosen: bool) -> None:
    check_gradients(turned, *inputs((3, 2, 1, 7, 4), torch.float64, chosen))


def test_a_pair_is_turned_by_its_angle_as_a_complex_number() -> None:
    q, k, cos, sin, _ = inputs((6, 3, 2, 10, 8), torch.float64)
    assert q is not None and k is not None and cos is not None and sin is not None
    for x, y in zip((q, k), rope(q, k, cos, sin), strict=True):
        pairs = torch.complex(x[..., :4], x[..., 4:8]) * torch.complex(cos, sin)[:, None]
        torch.testing.assert_close(y[..., :8], torch.cat([pairs.real, pairs.imag], -1))
        assert torch.equal(y[..., 8:], x[..., 8:])


def test_products_of_queries_and_keys_depend_on_the_distance_alone() -> None:
    q, k = random(1, 1, 8, dtype=torch.float64), random(1, 1, 8, dtype=torch.float64, seed=1)
    angles = torch.arange(40, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.01], dtype=torch.float64)
    both, table = (q.expand(40, 1, 8), k.expand(40, 1, 8)), (angles.cos(), angles.sin())
    turned_q, turned_k = (x[:, 0] for x in rope(*both, *table))
    torch.testing.assert_close(turned_q[7] @ turned_k[2], turned_q[30] @ turned_k[25])


def test_shapes_that_do_not_fit_are_refused() -> None:
    q, table = torch.zeros(3, 2, 8), torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"k of shape \(4, 2, 8\)"):
        rope(q, torch.zeros(4, 2, 8), table, table)
    with pytest.raises(ValueError, match="for heads of 8 values"):
        rope(q, q, torch.zeros(3, 5), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="angles of 2 tokens for 3"):
        rope(q, q, table, table, positions=torch.zeros(2, dtype=torch.int64))


@shapes
@orders
@training_dtypes
def test_the_reference_is_the_exact_result_rounded(shape: tuple[int, ...], chosen: bool, dtype: torch.dtype) -> None:
    check(turned, inputs(shape, dtype, chosen), backend="reference")


@pytest.mark.interpreted
@shapes
@orders
@interpreted_dtypes
def test_the_kernel_is_the_reference(shape: tuple[int, ...], chosen: bool, dtype: torch.dtype) -> None:
    check(turned, inputs(shape, dtype, chosen))


@pytest.mark.interpreted
def test_the_kernel_reads_heads_that_lie_apart() -> None:
    q, k, *others = inputs((5, 4, 2, 16, 16), torch.float32)
    check(lambda q, k, *rest, **options: turned(q[:, ::2], k[:, :1], *rest, **options), [q, k, *others])


@all_targets
@pytest.mark.parametrize(
    "shape", [(8, 9, 3, 64, 64), (8, 32, 8, 128, 128), (8, 128, 8, 128, 128), (8, 32, 32, 96, 64)], ids=str
)
@orders
def test_the_kernel_compiles_without_spills(shape: tuple[int, ...], chosen: bool, target: Target) -> None:
    from sottovoce_kernels.rope import kernel

    tokens, heads, kv_heads, width, rotated = shape
    table = meta(tokens, rotated // 2, dtype=torch.float32)
    order = meta(tokens, dtype=torch.int64) if chosen else None
    check_compiles(
        lambda: kernel.forward(meta(tokens, heads, width), meta(tokens, kv_heads, width), table, table, order), target
    )


@pytest.mark.parametrize("shape", [*SHAPES, (1000, 9, 3, 64, 64), (300, 32, 8, 128, 128)], ids=str)
@orders
@training_dtypes
def test_on_a_gpu_the_kernel_is_the_reference(
    shape: tuple[int, ...], chosen: bool, dtype: torch.dtype, gpu: torch.device
) -> None:
    check(turned, inputs(shape, dtype, chosen), device=gpu)
