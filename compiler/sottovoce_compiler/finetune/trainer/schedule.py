"""How the learning rate goes over a run: a factor of its highest value, from the step alone, so that nothing has to be
kept to go on."""

import math
from collections.abc import Callable, Mapping

# Share of the steps after the warm-up that are done, 0 to 1 -> factor.
SHAPES: Mapping[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}


def factor(shape: str, step: int, steps: int, warmup: float) -> float:
    """What the highest rate is multiplied by at `step` (0 is the first of `steps`). The rate rises in a straight line
    over the first `warmup` share of the steps and reaches its height at their end, then falls by `shape`, to just
    above 0 at the last step."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return SHAPES[shape]((step - rising) / max(1, steps - rising))
