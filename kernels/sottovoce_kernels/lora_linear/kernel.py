# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
"""lora_linear on a GPU. The adapter costs one narrow product beside the frozen weight's, and one step more within it.

Forward: S = x [a_1; a_2; ..]^T, x read once; then every y_i of the group in one launch, whose loop over K is followed
by a step over the rank, s_i S b_i^T, and the bias, before y is written. Backward: dS_i = s_i dy_i b_i; then dx in one
launch, a loop over the outputs of each projection and a step over all ranks; da and db as sums over rows, split over
programs and added up in a fixed order. What an unfused adapter costs on top is traffic: y read and written again, x and
dy read again for every projection (LoRAFusion, Zhu et al. 2025, arXiv 2510.00206, splits at the same place).

Ranks are padded to a common power of two, with zeros.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from sottovoce_kernels.quantized.kernel import block_of, operands
from sottovoce_kernels.quantized.weight import QuantizedWeight
from sottovoce_kernels.tiles import unit_stride

from .products import adapter_gradient, input_gradient, narrow, project
from .projection import Projection
from .reference import Gradients
from .tiles import (
    DECODED_IN_LOOP,
    GRADIENT_IN_LOOP,
    LEAST_NARROW_ROWS,
    LEAST_ROWS,
    SWIZZLE,
    Tile,
    Tiles,
    capability_of,
    splits,
    tiles_for,
)

TOGETHER = 3  # projections of one launch: q, k and v
LEAST_RANK = 16  # depth of one tensor core instruction


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Projections of one launch: of one kind, with adapters or without. `columns`: where theirs begin in S."""

    members: tuple[Projection, ...]
    columns: int

    @property
    def kind(self) -> str:
        """Of all its weights."""
        return self.members[0].kind

    def padded(self, values: Sequence[Any]) -> list[Any]:
        """`values`, one a member, and the first again for arguments that no member takes."""
        return [*values, *[values[0]] * (TOGETHER - len(values))]


@dataclass(frozen=True, slots=True)
class Plan:
    """What all launches of one call share. `rank`: columns of S that each adapter has, its own padded with zeros."""

    tiles: Tiles
    rank: int
    dtype: torch.dtype
    precision: str

    @classmethod
    def of(cls, tensor: Tensor, projections: Sequence[Projection]) -> "Plan":
        """For tokens of this dtype on this device."""
        widest = max((projection.rank for projection in projections), default=0)
        exact = torch.get_float32_matmul_precision() == "highest"
        return cls(
            tiles_for(capability_of(tensor.device)),
            max(LEAST_RANK, triton.next_power_of_2(widest)) if widest else 0,
            tensor.dtype,
            "tf32x3" if exact else "tf32",
        )

    def tile(self, tile: Tile) -> Tile:
        """`tile`, or where products are in float32 the one for that."""
        if self.dtype != torch.float32:
            return tile
        return self.tiles.narrow_float32 if tile is self.tiles.narrow else self.tiles.float32


def forward(x: Tensor, projections: Sequence[Projection]) -> tuple[list[Tensor], Tensor | None]:
    """As the reference's, with S (T, adapters times the padded rank)."""
    x, plan = unit_stride(x), Plan.of(x, projections)
    adapted = [projection for projection in projections if projection.rank]
    s = None
    if adapted:
        a = _stacked_a(adapted, plan)
        s = x.new_empty(len(x), len(a))
        _launch_narrow(x, a, s, plan)
    outputs = []
    for group in _groups(projections, plan, lambda kind: len(x) <= DECODED_IN_LOOP[kind]):
        outputs += _launch_project(x, s, group, plan)
    return outputs, s


def backward(
    grads: Sequence[Tensor | None],
    x: Tensor | None,
    s: Tensor | None,
    projections: Sequence[Projection],
    needs_x: bool,
    needs: Sequence[tuple[bool, bool]],
) -> Gradients:
    """As the reference's; gradients of adapters are float32."""
    grads = [None if dy is None else unit_stride(dy) for dy in grads]
    plan = Plan.of(next(dy for dy in grads if dy is not None), projections)
    ds = _narrowed_gradients(grads, projections, plan) if needs_x or x is not None else None
    da = None if x is None or ds is None else _adapter_gradient(unit_stride(x), ds, plan, 1.0, ranks_first=True)
    adapters: list[tuple[Tensor | None, Tensor | None]] = []
    begin = 0
    for projection, dy, (needs_a, needs_b) in zip(projections, grads, needs, strict=True):
        part = da[begin : begin + projection.rank] if da is not None and needs_a else None
        db = None
        if needs_b and dy is not None and s is not None:
            slim = s[:, begin : begin + projection.rank]
            db = _adapter_gradient(dy, slim, plan, projection.scale, ranks_first=False)
        adapters.append((part, db))
        begin += plan.rank if projection.rank else 0
    return _input_gradient(grads, ds, projections, plan) if needs_x else None, adapters


def _groups(projections: Sequence[Projection], plan: Plan, in_loop: Callable[[str], bool]) -> Iterator[Group]:
    """Neighbours that one launch can take, up to TOGETHER; weights that the loop does not decode are decoded."""
    members: list[Projection] = []
    columns = begin = 0
    for projection in projections:
        if not in_loop(projection.kind):
            projection = replace(projection, weight=projection.dense(plan.dtype))
        if members and (len(members) == TOGETHER or _key(projection) != _key(members[0])):
            yield Group(tuple(members), begin)
            members, begin = [], columns
        members.append(projection)
        columns += plan.rank if projection.rank else 0
    yield Group(tuple(members), begin)


def _key(projection: Projection) -> tuple[str, bool]:
    return projection.kind, projection.rank > 0


def _stacked_a(adapted: Sequence[Projection], plan: Plan) -> Tensor:
    """Every a in the products' dtype, (adapters times the padded rank, K)."""
    first = adapted[0].a
    assert first is not None
    stacked = first.new_zeros(len(adapted), plan.rank, first.shape[1], dtype=plan.dtype)
    for part, projection in zip(stacked, adapted, strict=True):
        part[: projection.rank] = projection.a
    return stacked.view(-1, first.shape[1])


def _stacked_b(adapted: Sequence[Projection], plan: Plan) -> Tensor:
    """Every b times its scale in the products' dtype, (N of all, padded rank)."""
    first = adapted[0].b
    assert first is not None
    stacked = first.new_zeros(sum(projection.outputs for projection in adapted), plan.rank, dtype=plan.dtype)
    parts = stacked.split([projection.outputs for projection in adapted])
    for part, projection in zip(parts, adapted, strict=True):
        torch.mul(projection.b, projection.scale, out=part[:, : projection.rank])  # type: ignore[arg-type]
    return stacked


def _stacked_bias(members: Sequence[Projection], plan: Plan, device: torch.device) -> Tensor | None:
    """Every bias, zeros for a member without; None where none has one."""
    if all(projection.bias is None for projection in members):
        return None
    rows = [
        torch.zeros(projection.outputs, dtype=plan.dtype, device=device) if projection.bias is None else projection.bias
        for projection in members
    ]
    return torch.cat(rows)


def _weights(members: Sequence[Projection], plan: Plan) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
    """Data of each weight with rows one behind the other, scales of each that has them, and the codes of nf4.

    For 16-bit products the codes are float16, off by an eighth of bfloat16's rounding: look-ups of four bytes would be
    taken for tiles and copied to shared memory one by one."""
    halves = torch.float32 if plan.dtype == torch.float32 else torch.float16
    data: list[Tensor] = []
    scales: list[Tensor] = []
    codes = None
    for projection in members:
        if isinstance(projection.weight, QuantizedWeight):
            part, scale, codes = operands(projection.weight, halves)
            data.append(part)
            scales.append(scale)
        else:
            data.append(projection.weight.contiguous())
    return data, scales, codes


def _launch_narrow(x: Tensor, matrix: Tensor, out: Tensor, plan: Plan) -> None:
    """out (T, R) = x (T, K) matrix (R, K)^T; `matrix` may be a transposed view."""
    (rows, inputs), ranks = x.shape, len(matrix)
    tile = plan.tile(plan.tiles.narrow)
    tile = replace(tile, columns=min(tile.columns, max(LEAST_RANK, triton.next_power_of_2(ranks))))
    tile = tile.filling(rows, triton.cdiv(ranks, tile.columns), LEAST_NARROW_ROWS)
    if rows:
        narrow[triton.cdiv(rows, tile.rows), triton.cdiv(ranks, tile.columns)](
            x, matrix, out, rows, inputs, ranks, x.stride(0), matrix.stride(0), matrix.stride(1), out.stride(0),
            PRECISION=plan.precision, **tile.options,
        )  # fmt: skip


def _launch_project(x: Tensor, s: Tensor | None, group: Group, plan: Plan) -> list[Tensor]:
    members, (rows, inputs) = group.members, x.shape
    outputs = [x.new_empty(rows, projection.outputs) for projection in members]
    if not rows:
        return outputs
    data, scales, codes = _weights(members, plan)
    adapted = members[0].rank > 0 and s is not None
    tile = plan.tile(plan.tiles.project if group.kind == "dense" else plan.tiles.decoding)
    counts = [projection.outputs for projection in members]
    columns = sum(triton.cdiv(count, tile.columns) for count in counts)
    tile = tile.filling(rows, columns, LEAST_ROWS)
    project[(triton.cdiv(rows, tile.rows) * columns,)](
        x,
        s[:, group.columns :] if s is not None and adapted else None,
        *group.padded(data),
        torch.cat(scales) if scales else None,
        codes,
        _stacked_b(members, plan) if adapted else None,
        _stacked_bias(members, plan, x.device),
        *group.padded(outputs),
        rows,
        inputs,
        *group.padded(counts),
        plan.rank,
        data[0].shape[1],
        x.stride(0),
        s.stride(0) if s is not None and adapted else 0,
        data[0].stride(0),
        KIND=group.kind,
        BLOCK=block_of(group.kind),
        COUNT=len(members),
        RANK_STEP=max(LEAST_RANK, min(plan.rank, tile.depth)),
        SWIZZLE=SWIZZLE,
        PRECISION=plan.precision,
        **tile.options,
    )
    return outputs


def _narrowed_gradients(grads: Sequence[Tensor | None], projections: Sequence[Projection], plan: Plan) -> Tensor | None:
    """dS (T, adapters times the padded rank); None without adapters."""
    like = next(dy for dy in grads if dy is not None)
    pairs = [(projection, dy) for projection, dy in zip(projections, grads, strict=True) if projection.rank]
    if not pairs:
        return None
    ds = like.new_empty(len(like), len(pairs) * plan.rank)
    for (projection, dy), part in zip(pairs, ds.split(plan.rank, 1), strict=True):
        if dy is None:
            part.zero_()
        else:
            _launch_narrow(dy, _stacked_b([projection], plan).T, part, plan)
    return ds


def _input_gradient(
    grads: Sequence[Tensor | None], ds: Tensor | None, projections: Sequence[Projection], plan: Plan
) -> Tensor:
    like = next(dy for dy in grads if dy is not None)
    dx = like.new_empty(len(like), projections[0].inputs)
    pairs = [(projection, dy) for projection, dy in zip(projections, grads, strict=True) if dy is not None]
    adapted = [projection for projection in projections if projection.rank]
    a = _stacked_a(adapted, plan) if adapted else None
    plain = [replace(projection, a=None, b=None) for projection, _ in pairs]
    done = 0
    for group in _groups(plain, plan, GRADIENT_IN_LOOP.__contains__):
        part = [dy for _, dy in pairs[done : done + len(group.members)]]
        _launch_input_gradient(part, None if done else ds, None if done else a, dx, group, plan, adds=done > 0)
        done += len(part)
    return dx


def _launch_input_gradient(
    grads: Sequence[Tensor], ds: Tensor | None, a: Tensor | None, dx: Tensor, group: Group, plan: Plan, adds: bool
) -> None:
    rows, inputs = dx.shape
    tile = plan.tile(plan.tiles.gradient if group.kind == "dense" else plan.tiles.gradient_decoding)
    data, scales, _ = _weights(group.members, plan)
    ranks = 0 if ds is None else ds.shape[1]
    tile = tile.filling(rows, triton.cdiv(inputs, tile.columns), LEAST_ROWS)
    if rows:
        input_gradient[(triton.cdiv(rows, tile.rows) * triton.cdiv(inputs, tile.columns),)](
            *group.padded(grads),
            *group.padded(data),
            *group.padded(scales or [None]),
            ds,
            a,
            dx,
            rows,
            inputs,
            *group.padded([projection.outputs for projection in group.members]),
            *group.padded([dy.stride(0) for dy in grads]),
            ranks,
            0 if ds is None else ds.stride(0),
            0 if a is None else a.stride(0),
            data[0].stride(0),
            KIND=group.kind,
            COUNT=len(grads),
            RANK_STEP=min(tile.depth, triton.next_power_of_2(max(ranks, LEAST_RANK))),
            ADDS=adds,
            SWIZZLE=SWIZZLE,
            PRECISION=plan.precision,
            **tile.options,
        )


def _adapter_gradient(wide: Tensor, slim: Tensor, plan: Plan, scale: float, *, ranks_first: bool) -> Tensor:
    """scale slim^T wide, (R, N), or its transpose (N, R), float32, of `wide` (T, N) and `slim` (T, R)."""
    (rows, columns), ranks = wide.shape, slim.shape[1]
    tile = plan.tile(plan.tiles.adapter)
    tile = replace(tile, rows=min(tile.rows, max(LEAST_RANK, triton.next_power_of_2(ranks))))
    tiles = triton.cdiv(columns, tile.columns), triton.cdiv(ranks, tile.rows)
    parts = splits(rows, tiles[0] * tiles[1])
    each = triton.cdiv(triton.cdiv(rows, parts), tile.depth) * tile.depth
    shape = (ranks, columns) if ranks_first else (columns, ranks)
    sums = torch.empty(parts, *shape, dtype=torch.float32, device=wide.device)
    out_rank, out_column = (columns, 1) if ranks_first else (1, ranks)
    adapter_gradient[(*tiles, parts)](
        wide, slim, sums, rows, columns, ranks, each, wide.stride(0), slim.stride(0), out_column, out_rank,
        sums.stride(0), scale, PRECISION=plan.precision, **tile.options,
    )  # fmt: skip
    return sums[0] if parts == 1 else sums.sum(0)
