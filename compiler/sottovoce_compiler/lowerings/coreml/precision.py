"""The precisions of Core ML packages by name, and which iOS they need. Imports nothing large."""

from collections.abc import Mapping

PALETTES: Mapping[str, int] = {"pal6": 6, "pal4": 4}  # bits of an index into a table of values
COREML_PRECISIONS = ("fp16", "int8", "int4", *PALETTES)
# Tables for groups of rows, and scales for blocks within a row, came with iOS 18 and macOS 15.
_OF_IOS18 = frozenset({"int4", "pal4"})


def deployment(*precisions: str, stateful: bool = False) -> str:
    """The oldest system that runs a package with weights of `precisions`, as coremltools names it; `stateful` is one
    whose caches are states."""
    return "iOS18" if stateful or _OF_IOS18 & set(precisions) else "iOS17"


SYSTEMS: Mapping[str, str] = {"iOS17": "iOS 17 or macOS 14", "iOS18": "iOS 18 or macOS 15"}
