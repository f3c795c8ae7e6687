"""Where a model comes from: `resolve` turns the SOURCE of a command into a `Checkpoint`.

Knows which kind of source a spec names. What each kind is made of is in its own module, and which models
can be compiled is not known here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sottovoce_compiler.sources import gguf, hub, layouts, pypi
from sottovoce_compiler.sources.checkpoint import Array, Checkpoint, SourceError, Tensors
from sottovoce_compiler.sources.pins import read_pins, unknown_name

__all__ = ["Array", "Checkpoint", "SourceError", "Tensors", "resolve"]


class Open(Protocol):
    """Opens the source that a spec names; a `SourceError` says why it cannot."""

    def __call__(self, spec: str, *, offline: bool) -> Checkpoint:
        """The checkpoint; with `offline` nothing may use the network."""
        ...


@dataclass(frozen=True)
class Kind:
    """One kind of source: which specs name it, and what opens it."""

    title: str
    matches: Callable[[str], bool]
    open: Open


def resolve(spec: str, *, offline: bool = False) -> Checkpoint:
    """The checkpoint that SOURCE names.

    Fetches what is not cached, unless `offline`. A `SourceError` names the spec and the way out.
    """
    spec = spec.strip()
    for kind in KINDS:
        if kind.matches(spec):
            return kind.open(spec, offline=offline)
    raise unknown_name(spec)


def _open_short_name(spec: str, *, offline: bool) -> Checkpoint:
    named = read_pins().names[spec]
    opened = resolve(named.spec, offline=offline)
    return replace(opened, spec=spec, name=spec, licence=named.licence or opened.licence)


def _open_path(spec: str, *, offline: bool) -> Checkpoint:
    return replace(layouts.open_folder(Path(spec).expanduser()), spec=spec)


def _is_path(spec: str) -> bool:
    """A folder or file that exists, or something that can only be meant as one."""
    looks = re.match(r"[./~\\]|[A-Za-z]:[\\/]", spec) is not None or spec.partition("@")[0].count("/") > 1
    looks = looks or spec.endswith(gguf.SUFFIX)
    return bool(spec) and (looks or Path(spec).exists())


# The first that matches counts. A short name is always that: a folder of the same name is written
# ./whisper-base.
KINDS = (
    Kind("short name", lambda spec: spec in read_pins().names, _open_short_name),
    Kind("Python packages", lambda spec: spec.startswith(pypi.PREFIX), pypi.open_source),
    Kind("Hub, written out", lambda spec: spec.startswith(hub.PREFIX), hub.open_source),
    Kind("folder", _is_path, _open_path),
    Kind("Hub", lambda spec: hub.parse(spec) is not None, hub.open_source),
)
