"""Which examples go through the model together, and the tensors of a micro-batch. No padding anywhere.

A micro-batch is a bin: whole examples one behind the other, kept apart by their segments. Packed, bins are filled to
`batch_tokens` by best fit; unpacked, each holds the same number of examples, `batch_tokens` over the longest. Both draw
their order from the seed and the epoch alone, so that any process can make the plan of all of them. Knows lengths and
ids, no text.
"""

import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sottovoce_compiler.finetune.batches import IGNORED, PackedTokens
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_kernels.segments import Segments

Bin = tuple[int, ...]  # indices of examples
Plan = tuple[tuple[Bin, ...], ...]  # steps of one process, each of its micro-batches

BUFFER = 16  # bins' worth of examples among which best fit chooses: fewer leave gaps, more sort the order by length
WORTH = 0.05  # share of micro-batches that packing must save to be used


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to pack, and why, in a line for the user."""

    use: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one epoch's bins. `fill` is the share of the bins' tokens that examples take; `saved` the share of all tokens
    that would be padding in shuffled batches of as many examples as a bin has on average, padded to their longest."""

    examples: int
    tokens: int
    bins: int
    mean_length: float
    fill: float
    saved: float

    def __str__(self) -> str:
        return (
            f"{self.examples} examples of {self.mean_length:.0f} tokens on average in {self.bins} micro-batches, "
            f"{self.fill:.0%} full; padding would be {self.saved:.0%} of all tokens"
        )


def pack(lengths: Sequence[int], size: int, seed: int, epoch: int = 0) -> tuple[Bin, ...]:
    """Every index of `lengths` once, in bins of at most `size` tokens; a longer example has a bin of its own.

    Best-fit decreasing (Johnson, 1974) within a shuffled buffer of `BUFFER` bins' worth; the bin that is left emptiest
    is emptied into the next buffer. The same seed and epoch give the same bins. Raises ValueError for lengths or a size
    below one.
    """
    _check(lengths, size)
    order = _shuffled(len(lengths), seed, epoch)
    each = max(2 * BUFFER, BUFFER * size * len(lengths) // max(1, sum(lengths)))
    bins: list[Bin] = []
    rest: Bin = ()
    for start in range(0, len(order), each):
        found = _best_fit([*rest, *order[start : start + each]], lengths, size)
        rest = ()
        if start + each < len(order) and len(found) > 1:
            emptiest = min(range(len(found)), key=lambda at: sum(lengths[index] for index in found[at]))
            rest = found.pop(emptiest)
        bins += found
    _random(seed, epoch, "bins").shuffle(bins)  # best fit leaves the longest examples in front
    return tuple(bins)


def group(lengths: Sequence[int], size: int, seed: int, epoch: int = 0) -> tuple[Bin, ...]:
    """Every index of `lengths` once, as many in each bin as there are of the longest example in `size` tokens, one at
    least: batches of a fixed number of examples, which hold no more than `size` either."""
    _check(lengths, size)
    each = max(1, size // max(lengths, default=1))
    order = _shuffled(len(lengths), seed, epoch)
    return tuple(tuple(order[start : start + each]) for start in range(0, len(order), each))


def bins_of(lengths: Sequence[int], size: int, seed: int, epoch: int, packing: bool) -> tuple[Bin, ...]:
    """The micro-batches of an epoch, of all processes together."""
    return (pack if packing else group)(lengths, size, seed, epoch)


def pays(lengths: Sequence[int], batch: int) -> Decision:
    """Whether bins of `batch` tokens take enough fewer micro-batches than batches of a fixed number of examples do."""
    if not lengths:
        return Decision(False, "no packing: there are no examples")
    longest, each = max(lengths), max(1, batch // max(lengths))
    packed, plain = len(pack(lengths, batch, 0)), len(group(lengths, batch, 0))
    fill = sum(lengths) / (packed * batch)
    compared = f"{packed} micro-batches of up to {batch} tokens in place of {plain} of {each} examples"
    if packed <= (1 - WORTH) * plain:
        return Decision(True, f"packing: {compared}, {fill:.0%} full")
    if 2 * min(lengths) > batch:
        return Decision(False, f"no packing: no two examples fit {batch} tokens together")
    if min(lengths) > (1 - 2 * WORTH) * longest:
        return Decision(False, f"no packing: all lengths are about equal ({min(lengths)} to {longest} tokens)")
    return Decision(False, f"no packing: it would take {compared}")


def statistics(lengths: Sequence[int], bins: Sequence[Bin], size: int) -> Statistics:
    """Of `bins` that hold examples of `lengths`."""
    count = sum(map(len, bins))
    room = sum(max(size, sum(lengths[index] for index in one)) for one in bins)
    tokens = sum(lengths[index] for one in bins for index in one)
    padded = _padded([lengths[index] for one in bins for index in one], max(1, round(count / max(1, len(bins)))))
    return Statistics(
        examples=count,
        tokens=tokens,
        bins=len(bins),
        mean_length=tokens / count if count else 0.0,
        fill=tokens / room if room else 0.0,
        saved=1 - tokens / padded if padded else 0.0,
    )


def epoch_batches(
    lengths: Sequence[int],
    batch_tokens: int,
    accumulation: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    *,
    packing: bool = True,
) -> Plan:
    """The optimizer steps of an epoch for process `rank` of `world`.

    A step is `world` times `accumulation` bins, dealt out in turn: what is in it depends on that product alone, so
    that two processes see at each step what one sees that accumulates twice as much. Every process has as many
    micro-batches at a step as every other: in the last one some may be empty, `()`, of which `collate` makes a token
    without a label. Raises ValueError for a rank that is not there, or numbers below one.
    """
    if accumulation < 1 or not 0 <= rank < world:
        raise ValueError(f"accumulation {accumulation}, rank {rank} of {world}; 1 or more, and 0 to the last are known")
    bins = bins_of(lengths, batch_tokens, seed, epoch, packing)
    return tuple(tuple(_dealt(step, rank, world)) for step in _steps(bins, world * accumulation))


def steps_in(
    lengths: Sequence[int], batch_tokens: int, bins_a_step: int, seed: int, epoch: int, *, packing: bool = True
) -> int:
    """How many steps `epoch_batches` gives; `bins_a_step` is world times accumulation."""
    return -(-len(bins_of(lengths, batch_tokens, seed, epoch, packing)) // bins_a_step)


def collate(examples: Sequence[Example], device: torch.device | str | None = None) -> PackedTokens:
    """The tensors of a micro-batch: one segment an example, in their order.

    Without examples a single token without a label: its loss is 0 and so are its gradients, but all that processes do
    together is done. Raises ValueError for an example without tokens.
    """
    ids = [example.ids for example in examples] or [np.zeros(1, np.int32)]
    learned = [example.learned for example in examples] or [np.zeros(1, np.bool_)]
    segments = Segments.of([len(one) for one in ids])
    batch = PackedTokens(
        tokens=torch.from_numpy(np.concatenate(ids).astype(np.int64)),
        labels=torch.from_numpy(np.concatenate([_labels(*one) for one in zip(ids, learned, strict=True)])),
        positions=torch.from_numpy(np.concatenate([np.arange(len(one), dtype=np.int64) for one in ids])),
        segments=segments,
        examples=tuple(example.line for example in examples),
    )
    return batch if device is None else batch.to(device)


def _padded(lengths: Sequence[int], each: int) -> int:
    """Tokens of shuffled batches of `each` examples that are padded to their longest."""
    shuffled = [lengths[index] for index in _shuffled(len(lengths), 0, 0)]
    batches = (shuffled[start : start + each] for start in range(0, len(shuffled), each))
    return sum(len(batch) * max(batch) for batch in batches)


def _labels(ids: NDArray[np.int32], learned: NDArray[np.bool_]) -> NDArray[np.int64]:
    labels = np.full(len(ids), IGNORED, np.int64)
    labels[:-1] = np.where(learned[1:], ids[1:], IGNORED)
    return labels


def _steps(bins: Sequence[Bin], each: int) -> Iterator[Sequence[Bin]]:
    return (bins[start : start + each] for start in range(0, len(bins), each))


def _dealt(step: Sequence[Bin], rank: int, world: int) -> Iterator[Bin]:
    for start in range(0, len(step), world):
        yield step[start + rank] if start + rank < len(step) else ()


def _best_fit(indices: Sequence[int], lengths: Sequence[int], size: int) -> list[Bin]:
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # room left and the bin, sorted
    for index in sorted(indices, key=lambda index: -lengths[index]):  # stable: equal lengths stay shuffled
        length = lengths[index]
        at = bisect_left(open_bins, (length, -1))
        if at < len(open_bins):
            room, chosen = open_bins.pop(at)
        else:
            room, chosen = size, len(bins)
            bins.append([])
        bins[chosen].append(index)
        if room > length:
            insort(open_bins, (room - length, chosen))
    return [tuple(one) for one in bins]


def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    _random(seed, epoch, "order").shuffle(order)
    return order


def _random(seed: int, epoch: int, purpose: str) -> random.Random:
    return random.Random(f"{seed} {epoch} {purpose}")  # a string is hashed with SHA-512, the same everywhere


def _check(lengths: Sequence[int], size: int) -> None:
    if size < 1 or min(lengths, default=1) < 1:
        raise ValueError(f"bins of {size} tokens for examples of {min(lengths, default=1)} or more; both begin at 1")
