"""Whether a model fits: what it will take of what there is. Bytes throughout.

An estimate from above, made before anything is loaded, so that a device says a number instead of being killed.
"""

from dataclasses import dataclass

from sottovoce.engines.llama_cpp.checks import ModelFacts
from sottovoce.errors import EngineError

_CACHE_VALUE = 2  # bytes: keys and values are kept as float16
_BESIDES = 32 << 20  # the library, its vocabulary, buffers that do not depend on the model
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Room:
    """How long a sequence may be (`context` positions), how many tokens are run at once, and of how many of them the
    logits are kept."""

    context: int
    batch: int
    outputs: int


def needed_bytes(weights: int, facts: ModelFacts, room: Room) -> int:
    """Weights, the cache of the whole context, and the buffers of a graph that runs one batch."""
    cache = room.context * facts.position_values * _CACHE_VALUE
    # Activations of a layer are live two or three at a time; the mask is kept in float32 and float16.
    activations = room.batch * (8 * facts.width + 3 * facts.ffn) * 4 + room.batch * room.context * 6
    logits = 2 * room.outputs * facts.vocabulary * 4
    return weights + cache + activations + logits + _BESIDES


def check_memory(weights: int, facts: ModelFacts, room: Room, available: int | None) -> None:
    """Raises EngineError with both numbers where the model does not fit."""
    needed = needed_bytes(weights, facts, room)
    if available is not None and needed > available:
        cache = room.context * facts.position_values * _CACHE_VALUE
        raise EngineError(
            f"the model needs about {needed // _MB} MB, {cache // _MB} MB of it for {room.context} positions; "
            f"{available // _MB} MB are available. A smaller context needs less, as does a model of fewer bits"
        )
