"""Which operations on states may work on the buffer itself, because nobody could tell.

Reading a state copies it, and putting a slice into it copies it again: of a cache of many layers that would be all that
a step does. Where what was read is used for nothing but the next write, or only before it, no copy is needed.
"""

from collections.abc import Iterator, Sequence

from sottovoce_compiler.lowerings.coreml.evaluator.program import Operation, Variable


def in_place(operations: Sequence[Operation], outputs: Sequence[str]) -> frozenset[str]:
    """The outputs of `read_state` and `slice_update` operations that may be the state's own buffer. `operations` are in
    their order, `outputs` those of the function."""
    users: dict[str, list[int]] = {}
    for number, operation in enumerate(operations):
        for name in operation.uses():
            users.setdefault(name, []).append(number)
    found: set[str] = set()
    for number, operation in enumerate(operations):
        if operation.kind == "read_state":
            found |= set(_of_read(operations, number, users, outputs))
    return frozenset(found)


def _of_read(
    operations: Sequence[Operation], number: int, users: dict[str, list[int]], outputs: Sequence[str]
) -> Iterator[str]:
    read, state = operations[number].outputs[0].name, _name(operations[number], "input")
    later = range(number + 1, len(operations))
    changed = next((at for at in later if operations[at].kind in ("slice_update", "write_state")), len(operations))
    used = users.get(read, [])
    if read in outputs or not used:
        return
    # A slice is copied when it is rounded, and is then no longer the buffer.
    if all(operations[at].kind == "slice_by_index" and at < changed for at in used):
        yield read
    elif used == [changed] and operations[changed].kind == "slice_update" and _name(operations[changed], "x") == read:
        made = operations[changed].outputs[0].name
        writes = users.get(made, [])
        following = range(changed + 1, len(operations))
        write = next((at for at in following if operations[at].kind in ("read_state", "write_state")), -1)
        if writes == [write] and made not in outputs and _writes(operations[write], state, made):
            yield read
            yield made


def _writes(operation: Operation, state: str | None, data: str) -> bool:
    return operation.kind == "write_state" and _name(operation, "input") == state and _name(operation, "data") == data


def _name(operation: Operation, argument: str) -> str | None:
    """The variable given as `argument`, where it is one."""
    given = operation.arguments.get(argument, ())
    return given[0].name if len(given) == 1 and isinstance(given[0], Variable) else None
