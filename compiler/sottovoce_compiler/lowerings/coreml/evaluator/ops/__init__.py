"""What each operation of MIL does, by its name there; coremltools' reference of MIL operations has their definitions.

A function is given tensors by MIL's names of the inputs (texts as `str`, lists as a list), with MIL's defaults, and
gives one tensor or several. Values of float16 come in as float32 and are rounded by the caller afterwards. An input
that a function does not know is an error, as an unknown operation is.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sottovoce_compiler.lowerings.coreml.evaluator.ops import arithmetic, constants, network, reductions, shapes, states

OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **arithmetic.OPERATIONS,
    **constants.OPERATIONS,
    **network.OPERATIONS,
    **reductions.OPERATIONS,
    **shapes.OPERATIONS,
    **states.OPERATIONS,
}
