"""Runs a function of a package: constants once, what depends on inputs that stay once, the rest in every run.

Knows the order of things, when a value is no longer needed, and that each value must be of the type and shape that the
program says. What an operation does is in `ops`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sottovoce_compiler.lowerings.coreml.evaluator.errors import PackageError, UnknownOperationError
from sottovoce_compiler.lowerings.coreml.evaluator.in_place import in_place
from sottovoce_compiler.lowerings.coreml.evaluator.ops import OPERATIONS
from sottovoce_compiler.lowerings.coreml.evaluator.program import Function, Literal, Operation, Package, Typed, Variable

Array = NDArray[Any]
_INTEGERS = {torch.int32, torch.int64}
_STATEFUL = ("read_state", "write_state")


def check_known(package: Package) -> None:
    """Raises UnknownOperationError naming the operations that cannot be evaluated."""
    if unknown := sorted(package.kinds() - set(OPERATIONS)):
        raise UnknownOperationError(
            f"the evaluator does not know the operations {', '.join(unknown)}: what such a package computes was not "
            "checked, so it is not made"
        )


class Constants:
    """Values that do not depend on any input, shared by the functions of a package that have the same."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def of(self, operation: Operation, values: Mapping[str, Any]) -> Any:
        """What a `const` or `constexpr` operation gives; decompressed once."""
        shareable = operation.key is not None and not any(True for _ in operation.uses())
        if not shareable:
            return _computed(operation, values)
        assert operation.key is not None
        if operation.key not in self._known:
            self._known[operation.key] = _computed(operation, values)
        return self._known[operation.key]


@dataclass(frozen=True)
class Runner:
    """A function with some of its values known already, and the operations that are left."""

    function: Function
    values: Mapping[str, Any]
    left: tuple[Operation, ...]
    given: frozenset[str] = frozenset()  # inputs that are fixed

    @classmethod
    def of(cls, function: Function, constants: Constants) -> "Runner":
        """The function with its constants known. Raises PackageError where the program is not as its types say."""
        values: dict[str, Any] = {}
        left = []
        with torch.inference_mode():
            for operation in function.operations:
                if operation.key is not None:
                    result = constants.of(operation, values)
                    values.update(zip((one.name for one in operation.outputs), result, strict=True))
                else:
                    left.append(operation)
        return cls(function, values, tuple(left))._without_unused()

    def fixed(self, inputs: Mapping[str, Array]) -> "Runner":
        """With some inputs given for all runs to come: what depends on them alone is computed now."""
        values = {**self.values, **self._inputs(inputs)}
        left = []
        with torch.inference_mode():
            for operation in self.left:
                known = all(name in values for name in operation.uses())
                if known and operation.kind not in _STATEFUL:
                    result = _computed(operation, values)
                    values.update(zip((one.name for one in operation.outputs), result, strict=True))
                else:
                    left.append(operation)
        return replace(self, values=values, left=tuple(left), given=self.given | set(inputs))._without_unused()

    def run(self, inputs: Mapping[str, Array], states: Mapping[str, Tensor] | None = None) -> dict[str, Array]:
        """The outputs by name, for the inputs that are not fixed; `states` are written in place."""
        given = {**self._inputs(inputs), **(states or {})}
        needed = {one.name for one in (*self.function.inputs, *self.function.states)} - self.given
        if missing := sorted(needed - set(given)):
            raise PackageError(f"function {self.function.name} needs {', '.join(missing)}")
        values: dict[str, Any] = given
        last, direct = self._last_uses, self._in_place
        with torch.inference_mode():
            for number, operation in enumerate(self.left):
                known = _Chain(values, self.values)
                result = _computed(operation, known, direct)
                values.update(zip((one.name for one in operation.outputs), result, strict=True))
                for name in last.get(number, ()):
                    values.pop(name, None)
            found = _Chain(values, self.values)
            return {name: _array(found[name], self._kinds[name]) for name in self.function.outputs}

    def new_states(self) -> dict[str, Tensor]:
        """Buffers of zeros, as an app gets them."""
        return {one.name: torch.zeros(one.shape) for one in self.function.states}

    def _inputs(self, inputs: Mapping[str, Array]) -> dict[str, Tensor]:
        declared = {one.name: one for one in self.function.inputs}
        found = {}
        for name, array in inputs.items():
            if name not in declared:
                raise PackageError(f"function {self.function.name} has no input {name}")
            value = torch.from_numpy(np.ascontiguousarray(array))
            value = value.to(torch.int32 if declared[name].kind == "INT32" else torch.float32)
            found[name] = _checked(value, declared[name])
        return found

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """The type of every variable."""
        made = [one for operation in self.function.operations for one in operation.outputs]
        return {one.name: one.kind for one in (*self.function.inputs, *made)}

    @cached_property
    def _in_place(self) -> frozenset[str]:
        return in_place(self.left, self.function.outputs)

    @cached_property
    def _last_uses(self) -> dict[int, list[str]]:
        """After which operation each value is needed no more."""
        last: dict[str, int] = {}
        for number, operation in enumerate(self.left):
            last.update((name, number) for name in operation.uses())
        kept = {*self.function.outputs, *(one.name for one in self.function.states)}
        grouped: dict[int, list[str]] = {}
        for name, number in last.items():
            if name not in kept:
                grouped.setdefault(number, []).append(name)
        return grouped

    def _without_unused(self) -> "Runner":
        needed = {name for operation in self.left for name in operation.uses()} | set(self.function.outputs)
        return replace(self, values={name: value for name, value in self.values.items() if name in needed})


@dataclass(frozen=True, slots=True)
class _Chain(Mapping[str, Any]):
    """Two mappings as one, without copying either."""

    first: Mapping[str, Any]
    second: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.first[name] if name in self.first else self.second[name]

    def __iter__(self) -> Any:
        return iter({**self.second, **self.first})

    def __len__(self) -> int:
        return len({**self.second, **self.first})


def _computed(operation: Operation, values: Mapping[str, Any], direct: frozenset[str] = frozenset()) -> Sequence[Any]:
    """The values of an operation's outputs, of the types and shapes that the program says; `direct` are those that may
    be a state's own buffer."""
    own = any(one.name in direct for one in operation.outputs)
    arguments: dict[str, Any] = {"in_place": True} if own else {}
    for name, given in operation.arguments.items():
        found = [_value(values[one.name] if isinstance(one, Variable) else one) for one in given]
        arguments[name] = found if name == "values" else found[0]
    try:
        result = OPERATIONS[operation.kind](**arguments)
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AssertionError) as error:
        names = ", ".join(one.name for one in operation.outputs)
        raise PackageError(f"operation {operation.kind} of {names}: {str(error).splitlines()[0]}") from error
    several = result if isinstance(result, tuple) else (result,)
    if len(several) != len(operation.outputs):
        raise PackageError(
            f"operation {operation.kind} gives {len(several)} values, the program has {operation.outputs}"
        )
    if own:  # rounded when it was written
        return list(several)
    return [_checked(value, typed) for value, typed in zip(several, operation.outputs, strict=True)]


def _value(literal: Literal | Tensor) -> Any:
    return torch.from_numpy(np.array(literal)) if isinstance(literal, np.ndarray | np.generic) else literal


def _checked(value: Any, typed: Typed) -> Any:
    """Rounded where the program has float16. Raises PackageError where the shape or the kind of number differs."""
    if isinstance(value, str) or typed.kind == "STRING":
        return value
    if tuple(value.shape) != typed.shape:
        raise PackageError(f"{typed.name} has shape {tuple(value.shape)}, by the program {typed.shape}")
    floating = typed.kind in ("FLOAT16", "FLOAT32")
    if floating != value.dtype.is_floating_point or (typed.kind == "BOOL") != (value.dtype == torch.bool):
        raise PackageError(f"{typed.name} holds {value.dtype}, by the program {typed.kind}")
    if typed.kind == "FLOAT16":
        return value.half().float()
    return value.float() if floating else value


def _array(value: Tensor, kind: str) -> Array:
    array = value.numpy()
    return array.astype(np.float16) if kind == "FLOAT16" else array
