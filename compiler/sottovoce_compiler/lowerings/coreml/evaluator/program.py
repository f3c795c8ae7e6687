"""A program as it was saved: functions of operations between named variables. Knows nothing of how any is computed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# A number, truth or array (arrays of less than a byte each are uint8), or a text.
Literal = NDArray[np.generic] | str
Kind = str  # FLOAT16, INT32, BOOL, STRING, ...


@dataclass(frozen=True, slots=True)
class Typed:
    """A variable: its name, type and shape."""

    name: str
    kind: Kind
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """Where a variable is used."""

    name: str


Argument = Variable | Literal


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `arguments` are those given, by MIL's names of them, several where MIL takes a list; what is
    absent has its default. `key` is equal for operations that compute the same constant from the same place in the
    file."""

    kind: str
    arguments: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[Typed, ...]
    key: str | None = None

    def uses(self) -> Iterator[str]:
        """The names of the variables it takes."""
        for arguments in self.arguments.values():
            for one in arguments:
                if isinstance(one, Variable):
                    yield one.name


@dataclass(frozen=True, slots=True)
class Function:
    """Inputs and states by name, operations in order, and the names of the outputs."""

    name: str
    inputs: tuple[Typed, ...]
    states: tuple[Typed, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """All functions of a package; `default` is the one that an app gets that names none."""

    functions: Mapping[str, Function]
    default: str
    specification: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    def kinds(self) -> set[str]:
        """The kinds of operations in it."""
        return {one.kind for function in self.functions.values() for one in function.operations}
