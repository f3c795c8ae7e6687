"""The constants of the memory model: `measured.toml`, read once."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_FILE = "measured.toml"


def constants(group: str) -> Mapping[str, float]:
    """Those of one engine or task, by name; in bytes where the name does not say otherwise."""
    return _all()[group]


def imports(*names: str) -> dict[str, int]:
    """Bytes of each library once it is imported."""
    return {name: round(constants("imports")[name]) for name in names}


@cache
def _all() -> Mapping[str, Mapping[str, float]]:
    return tomllib.loads((files(__package__) / _FILE).read_text(encoding="utf-8"))
