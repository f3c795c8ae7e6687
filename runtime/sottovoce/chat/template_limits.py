"""What a chat template may cost: steps, text and depth, counted where the template works on a value.

A template comes with a model and is untrusted. Every operation whose cost grows with its operands pays for them first,
so a render ends after a known amount of work whatever the template says: no clock decides, and the same messages give
the same result on a slow device. Knows values and their sizes; knows nothing of Jinja.
"""

import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

MAX_SOURCE = 65_536  # characters of a template
MAX_TOKENS = 20_000  # lexical tokens of a template
MAX_NESTING = 32  # brackets and blocks of a template within one another
MAX_STEPS = 300_000  # of a render, beside what its input adds; about a second on a small machine
MAX_TEXT = 1_000_000  # characters of one text, beside what the input adds
MAX_ITEMS = 100_000  # of a list or a range, beside what the input adds
MAX_DEPTH = 64  # macros or recursive loops within one another, and lists within lists
MAX_BITS = 4096  # of a whole number
MAX_WIDTH = 1000  # of a field in a format string, an indent, a padding
MAX_FORMAT = 4096  # characters of a format string
CHARACTERS_A_STEP = 16  # copying this much text counts as a step

_DIGITS = re.compile(r"\d+")


class TemplateLimitError(Exception):
    """A template goes beyond a limit; the message names it."""


class Meter:
    """What one render may still do. `given` is the size of its input in characters."""

    def __init__(self, given: int = 0) -> None:
        self.steps = MAX_STEPS + 2 * given
        self.allowed = self.steps
        self.text = MAX_TEXT + 4 * given
        self.items = MAX_ITEMS + given
        self.depth = 0

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise TemplateLimitError(f"it does more than {self.allowed} steps of work")

    def sized(self, value: Any) -> Any:
        """`value`, made by the template, where it is not too large; its size is paid for."""
        if isinstance(value, str):
            self.room_for(len(value))
            self.spend(1 + len(value) // CHARACTERS_A_STEP)
        elif isinstance(value, list | tuple | dict):
            self.items_for(len(value))
            self.spend(1)
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise TemplateLimitError(f"it makes a number of more than {MAX_BITS} bits")
        return value

    def room_for(self, characters: int) -> None:
        if characters > self.text:
            raise TemplateLimitError(f"it makes a text of {characters} characters, more than {self.text}")

    def items_for(self, count: int) -> None:
        if count > self.items:
            raise TemplateLimitError(f"it makes a list of {count}, more than {self.items}")
        self.spend(max(0, count) // CHARACTERS_A_STEP)

    def weigh(self, value: Any, depth: int = 0) -> int:
        """Pay for all that is in `value`, however deep; how many characters it has about. A value that is in another
        twice is paid for twice: that is what printing, comparing and hashing cost."""
        if isinstance(value, str):
            self.spend(1 + len(value) // CHARACTERS_A_STEP)
            return len(value) + 2
        if isinstance(value, int):
            self.sized(value)
            self.spend(1)
            return 20 + value.bit_length() // 3
        if isinstance(value, Mapping):
            parts: Iterable[Any] = (part for pair in value.items() for part in pair)
        elif isinstance(value, list | tuple | KeysView | ValuesView | ItemsView):
            parts = value
        else:
            self.spend(1)
            return 40
        if depth >= MAX_DEPTH:
            raise TemplateLimitError(f"it makes lists more than {MAX_DEPTH} deep")
        self.spend(1)
        return 2 + sum(self.weigh(part, depth + 1) + 2 for part in parts)

    def drawn(self, values: Iterable[Any]) -> Iterator[Any]:
        """`values` one by one, each paid for as it is taken."""
        for value in values:
            self.spend(1)
            yield value

    def entering(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TemplateLimitError(f"its macros or loops are more than {MAX_DEPTH} deep")

    def leaving(self) -> None:
        self.depth -= 1


def add(meter: Meter, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        meter.room_for(len(left) + len(right))
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        meter.items_for(len(left) + len(right))
    return meter.sized(left + right)


def multiply(meter: Meter, left: Any, right: Any) -> Any:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str) and isinstance(times, int):
            meter.room_for(len(value) * times)
        elif isinstance(value, list | tuple) and isinstance(times, int):
            meter.items_for(len(value) * times)
    return meter.sized(left * right)


def power(meter: Meter, left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
        raise TemplateLimitError(f"it makes a number of more than {MAX_BITS} bits")
    return meter.sized(left**right)


def modulo(meter: Meter, left: Any, right: Any) -> Any:
    if isinstance(left, str):
        check_format(meter, left, (right,))
    return meter.sized(left % right)


def subtract(meter: Meter, left: Any, right: Any) -> Any:
    if not isinstance(left, int | float):
        meter.weigh((left, right))
    return meter.sized(left - right)


OPERATORS: Mapping[str, Callable[[Meter, Any, Any], Any]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "**": power,
    "%": modulo,
    "/": lambda meter, left, right: meter.sized(left / right),
    "//": lambda meter, left, right: meter.sized(left // right),
}


def check_format(meter: Meter, text: str, values: Any) -> None:
    """Pay for `text % values`."""
    check_format_string(text)
    if "*" in text:
        raise TemplateLimitError("a format string takes its width from a value ('*')")
    fields, most = text.count("%"), meter.weigh(values)
    meter.room_for(len(text) + fields * (MAX_WIDTH + most))
    meter.spend(fields * most // CHARACTERS_A_STEP)


def check_format_string(text: str) -> None:
    if len(text) > MAX_FORMAT:
        raise TemplateLimitError(f"it formats by a text of {len(text)} characters, more than {MAX_FORMAT}")
    widest = max((int(width) for width in _DIGITS.findall(text)), default=0)
    if widest > MAX_WIDTH:
        raise TemplateLimitError(f"a format string has the width {widest}, more than {MAX_WIDTH}")


def check_width(width: Any) -> None:
    if isinstance(width, int) and abs(width) > MAX_WIDTH:
        raise TemplateLimitError(f"it asks for a width of {width}, more than {MAX_WIDTH}")


def check_replacement(meter: Meter, text: str, old: Any, new: Any) -> None:
    meter.spend(1 + len(text) // CHARACTERS_A_STEP)
    if isinstance(old, str) and isinstance(new, str):
        found = text.count(old)
        meter.room_for(len(text) + found * max(0, len(new) - len(old)))
        meter.spend(found)


def check_join(meter: Meter, between: Any, parts: list[Any]) -> None:
    size = sum(meter.weigh(part) for part in parts)
    meter.room_for(size + len(parts) * (len(between) if isinstance(between, str) else 0) - 2 * len(parts))
