"""Building MIL programs: functions with named inputs and outputs, and constants that functions share.

Knows coremltools' builder. Knows nothing of models. Runs in the worker process alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.coreml.weights import Float, Half, Stored, half

Var = Any  # a variable of the program being built
HALF, FLOAT, INT = types.fp16, types.fp32, types.int32
_SPECIFICATION = {"iOS17": 8, "iOS18": 9}


class Constants:
    """Constants of all functions of a package. One of the same name is stored once, however many functions have it."""

    def __call__(self, name: str, value: Any) -> Var:
        """A constant: an array, number or text."""
        var = mb.const(val=value, name=name)
        var.op.weight_id = name
        return var

    def matrix(self, name: str, weight: Float, stored: Stored, ones: int = 0) -> Var:
        """A matrix (rows, columns) float32 stored in some way, with `ones` axes of 1 behind."""
        return stored.emit(self, name, weight, ones)

    def vector(self, name: str, values: Float) -> Var:
        """Values of any shape in float16."""
        return self(name, half(name, values))


def tensor(shape: Sequence[int], kind: Any = HALF) -> Any:
    """What an input is declared with."""
    return mb.placeholder(shape=tuple(shape), dtype=kind)


def state(shape: Sequence[int]) -> Any:
    """What a state is declared with; always float16."""
    return mb.state_tensor_placeholder(shape=tuple(shape), dtype=HALF)


def function(system: str, inputs: Mapping[str, Any], body: Callable[..., Mapping[str, Var]]) -> Function:
    """A function for `system` whose `body` is given the inputs by name, and gives the outputs by name."""
    with Function(dict(inputs), opset_version=getattr(ct.target, system)) as made:
        outputs = []
        for name, var in body(**made.inputs).items():
            outputs.append(mb.identity(x=var, name=name))
        made.set_outputs(outputs)
    return made


def program(functions: Mapping[str, Function]) -> Program:
    """One program of one function, which is then called "main", or of several."""
    whole = Program()
    names = list(functions)
    for name, one in functions.items():
        whole.add_function("main" if len(names) == 1 else name, one)
    if len(names) > 1:
        whole.default_function_name = names[0]
        whole.export_as_multifunction = True
    whole.skip_all_passes = True  # it is written as it shall be run
    return whole


def specification(system: str) -> int:
    """The version of Core ML's file format that came with `system`."""
    return _SPECIFICATION[system]


def bias(values: Float | None) -> NDArray[np.float16] | None:
    """A bias in float16, or none."""
    return None if values is None else half("a bias", values)


HALF_WEIGHTS: Stored = Half()
