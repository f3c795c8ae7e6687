"""Which of the targets this machine is.

Knows how to compare facts of targets with those of the processor at hand; the facts themselves are in targets/.
"""

from collections.abc import Iterable

from sottovoce.cpu import Cpu, this_cpu
from sottovoce.errors import InputError
from sottovoce_targets import Target, list_targets, load_target

_ARCHITECTURES = {"x86": "x86-64", "arm": "aarch64"}  # the runtime's names -> the targets'
_SYSTEM = "linux"  # of the targets that a workstation or a board can stand for


def native_target(cpu: Cpu | None = None, targets: Iterable[Target] | None = None) -> Target:
    """The target that uses most of this processor's instructions and needs none that it lacks.

    Where the instructions are not known, the one of its architecture that needs least. Raises InputError when no
    target fits.
    """
    found = cpu or this_cpu()
    known = [load_target(name) for name in list_targets()] if targets is None else list(targets)
    alike = [one for one in known if one.arch == _ARCHITECTURES.get(found.machine) and one.os == _SYSTEM]
    if not alike:
        raise InputError(f"there is no target for a {found.machine} processor; choose what to compile for: --target")
    if found.features is None:
        return min(alike, key=lambda one: len(one.instructions))
    fitting = [one for one in alike if not found.missing(one.instructions)]
    if not fitting:
        lacking = ", ".join(found.missing(min(alike, key=lambda one: len(one.instructions)).instructions))
        raise InputError(f"this processor lacks {lacking}, which every target for it needs; see: sottovoce targets")
    return max(fitting, key=lambda one: len(one.instructions))
