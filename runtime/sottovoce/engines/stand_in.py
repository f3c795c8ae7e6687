"""What opens bundles of an engine that cannot run here.

A host that compiles for such an engine (CoreML on Linux) measures the bundle all the same, with an evaluator of the
same file: it stands in for the engine while the report is made. Nothing here imports an engine, or a bundle.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sottovoce.bundle import Bundle
    from sottovoce.engines import BundleEngine
    from sottovoce.engines.chat import ChatEngine


@dataclass(frozen=True, slots=True)
class StandIn:
    """What opens bundles made for the engine `name`; None where nothing can.

    `speech` is given the bundle and a number of threads and loads nothing yet; `chat` also the positions of context, or
    None for the bundle's own, and gives a loaded engine.
    """

    name: str
    speech: "Callable[[Bundle, int], BundleEngine] | None" = None
    chat: "Callable[[Bundle, int, int | None], ChatEngine] | None" = None


_STANDING_IN: ContextVar[tuple[StandIn, ...]] = ContextVar("standing_in", default=())


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[None]:
    """Within the block, bundles made for `stand_in.name` are opened with it, and that engine need not be there."""
    token = _STANDING_IN.set((stand_in, *_STANDING_IN.get()))
    try:
        yield
    finally:
        _STANDING_IN.reset(token)


def stand_in_for(name: str) -> StandIn | None:
    """What stands in for the engine `name` at the moment."""
    return next((one for one in _STANDING_IN.get() if one.name == name), None)
