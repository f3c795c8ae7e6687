"""Lets the tests import the example's scripts, which are not an installed package; and what is said to them."""

import sys
from pathlib import Path

import pytest
from tests.examples.raspberry_pi.room_case import EXAMPLE

if str(EXAMPLE) not in sys.path:
    sys.path.append(str(EXAMPLE))


def _recording(name: str) -> Path:
    from sottovoce_compiler.report.builtin import builtin_set

    return next(clip.file for clip in builtin_set().clips if clip.name.startswith(name))


@pytest.fixture(scope="session")
def talk() -> Path:
    """Four seconds, with the word "heaven" in them."""
    return _recording("two-cities-24")


@pytest.fixture(scope="session")
def other() -> Path:
    """Somebody else: "Ever tried."."""
    return _recording("beckett-00.00")
