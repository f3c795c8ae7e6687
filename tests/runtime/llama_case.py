"""A tiny model in llama.cpp, for tests; they are skipped where no binding of llama.cpp is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sottovoce.bundle import Location
from sottovoce.engines.llama_cpp.engine import LlamaCpp
from sottovoce.engines.llama_cpp.library import find_binding
from sottovoce.errors import MissingExtraError


def _installed() -> bool:
    try:
        find_binding()
    except MissingExtraError:
        return False
    return True


needs_llama = pytest.mark.skipif(not _installed(), reason="no llama.cpp: neither llama-cpp-python nor xllamacpp")


@contextmanager
def engine(location: Path | Location, context: int | None = None) -> Iterator[LlamaCpp]:
    """A loaded engine on one thread, closed at the end."""
    made = LlamaCpp(location, threads=1, context=context)
    try:
        made.load()
        yield made
    finally:
        made.close()
