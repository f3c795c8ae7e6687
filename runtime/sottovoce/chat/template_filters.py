"""The filters, tests and methods that a chat template may use, each paying for its work first.

What is not in these tables a template cannot call. The functions are Jinja's own where they are sound once their
operands are bounded; `tojson` and `sum` are ours. Imports jinja2: only template_sandbox imports this.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from jinja2 import pass_environment
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.tests import TESTS

from sottovoce.chat.template_limits import (
    CHARACTERS_A_STEP,
    Meter,
    TemplateLimitError,
    add,
    check_format,
    check_join,
    check_replacement,
    check_width,
)

Arguments = Sequence[Any]
Check = Callable[[Meter, Any, Arguments, Mapping[str, Any]], None]

MAX_SEPARATOR = 16  # characters of an indent or a separator of `tojson`
MAX_STRIPPED = 256  # distinct characters to strip


def _shallow(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    """Work for each item, whatever is in it."""
    meter.spend(1 + (len(value) if isinstance(value, str | list | tuple | dict) else 0))


def _deep(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    """Work for all that is in the value."""
    meter.weigh((value, *args, *kwargs.values()))


def _ordering(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    _deep(meter, value, args, kwargs)
    meter.spend(meter.weigh(value) // 4)  # n log n comparisons: some ten times what looking once costs


def _widths(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    _deep(meter, value, args, kwargs)
    for one in (*args, *kwargs.values()):
        check_width(one)


def _indent(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    _widths(meter, value, args, kwargs)
    width = kwargs.get("width", args[0] if args else 4)
    lines = str(value).count("\n") + 1
    meter.room_for(len(str(value)) + lines * (len(width) if isinstance(width, str) else 1000))


def _replace(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    old, new = [*args, kwargs.get("old"), kwargs.get("new")][:2] if args else (kwargs.get("old"), kwargs.get("new"))
    _deep(meter, value, args, kwargs)
    check_replacement(meter, str(value), str(old), str(kwargs.get("new", new)))


def _join(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    between = kwargs.get("d", args[0] if args else "")
    meter.weigh(between)
    if isinstance(value, list | tuple | str | dict):
        check_join(meter, between, list(value))


def _format(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    meter.weigh(value)
    check_format(meter, str(value), (*args, *kwargs.values()))


def _strip(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    _deep(meter, value, args, kwargs)
    for stripped in (*args, *kwargs.values()):
        if isinstance(stripped, str) and len(stripped) > MAX_STRIPPED:
            raise TemplateLimitError(f"it strips {len(stripped)} different characters, more than {MAX_STRIPPED}")
        if isinstance(value, str) and isinstance(stripped, str):
            meter.spend(len(value) * len(stripped) // (4 * CHARACTERS_A_STEP))


def _number(meter: Meter, value: Any, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    if isinstance(value, str) and len(value) > 1000:
        raise TemplateLimitError(f"it reads a number from {len(value)} characters, more than 1000")
    _widths(meter, value, args, kwargs)


# How a filter is paid for. One that walks its value gets a list where the template gave an iterator.
_CHECKS: Final[Mapping[str, Check]] = {
    **dict.fromkeys(("list", "first", "last", "length", "count", "reverse", "items"), _shallow),
    **dict.fromkeys(("map", "select", "reject", "selectattr", "rejectattr"), _shallow),
    **dict.fromkeys(("batch", "slice", "round", "truncate", "center", "abs"), _widths),
    **dict.fromkeys(("min", "max", "sort", "dictsort", "unique", "groupby"), _ordering),
    **dict.fromkeys(("upper", "lower", "title", "capitalize", "wordcount", "e", "escape", "forceescape"), _deep),
    **dict.fromkeys(("int", "float"), _number),
    "trim": _strip,
    "indent": _indent,
    "replace": _replace,
    "join": _join,
    "format": _format,
}
_AS_THEY_ARE: Final = ("default", "d", "safe")


def _string(value: Any) -> Any:
    return FILTERS["string"](value)


@pass_environment
def _sum(environment: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    read = make_attrgetter(environment, attribute) if attribute is not None else lambda item: item
    total = start
    for item in environment.meter.drawn(iterable):
        total = add(environment.meter, total, read(item))
    return total


def to_json(
    meter: Meter,
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it for templates: nothing escaped for HTML."""
    step = indent if isinstance(indent, int) else len(indent or "")
    if step > MAX_SEPARATOR or any(len(one) > MAX_SEPARATOR for one in separators or ()):
        raise TemplateLimitError(f"it indents or separates JSON by more than {MAX_SEPARATOR} characters")
    size = meter.weigh(value)
    meter.room_for(size * (6 if ensure_ascii else 1) + size // 4 * max(0, step) * _depth(value))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _depth(value: Any) -> int:
    """How deep lists and objects are within one another; the value was weighed, so it is not deep."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list | tuple) else 0


def filters(meter: Callable[[], Meter]) -> dict[str, Callable[..., Any]]:
    """The filters by name; `meter` is that of the render under way."""
    table = {name: _paid(FILTERS[name], check, meter) for name, check in _CHECKS.items()}
    table |= {name: FILTERS[name] for name in _AS_THEY_ARE}
    table["sum"] = _paid(_sum, _shallow, meter)
    table["string"] = _paid(_string, _deep, meter, walks=False)
    table["tojson"] = lambda value, *args, **kwargs: meter().sized(to_json(meter(), value, *args, **kwargs))
    table["attr"] = pass_environment(lambda environment, value, name: environment.getattr(value, str(name)))
    return table


def tests(meter: Callable[[], Meter]) -> dict[str, Callable[..., Any]]:
    """Jinja's tests by name; those that look into values pay for it."""
    looking = {"in", "lower", "upper", "==", "eq", "equalto", "!=", "ne", "<", "lt", "lessthan", "<=", "le"}
    looking |= {">", "gt", "greaterthan", ">=", "ge"}
    table: dict[str, Any] = dict(TESTS)
    return table | {name: _paid(table[name], _deep, meter) for name in looking}


def _paid(function: Any, check: Check, meter: Callable[[], Meter], *, walks: bool = True) -> Callable[..., Any]:
    """`function`, which pays first. What it yields is made at once, so that no chain of unfinished iterators grows, and
    given as an iterator, as templates know it (always true, without a length)."""
    passed = getattr(function, "jinja_pass_arg", None)
    first = 0 if passed is None else 1

    def paid(*args: Any, **kwargs: Any) -> Any:
        now = meter()
        value = args[first]
        if walks and isinstance(value, Iterator):
            value = list(now.drawn(value))
        check(now, value, args[first + 1 :], kwargs)
        result = function(*args[:first], value, *args[first + 1 :], **kwargs)
        return iter(now.sized(list(now.drawn(result)))) if isinstance(result, Iterator) else now.sized(result)

    if passed is not None:
        paid.jinja_pass_arg = passed  # type: ignore[attr-defined]
    return paid


_PLAIN_METHODS: Final = (
    "capitalize",
    "casefold",
    "count",
    "endswith",
    "find",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "lower",
    "partition",
    "removeprefix",
    "removesuffix",
    "rfind",
    "rindex",
    "rpartition",
    "rsplit",
    "split",
    "splitlines",
    "startswith",
    "swapcase",
    "title",
    "upper",
)

# The methods of each type that may be called, and how they are paid for.
METHODS: Final[Mapping[type, Mapping[str, Check]]] = {
    str: {
        **dict.fromkeys(_PLAIN_METHODS, _deep),
        **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _widths),
        **dict.fromkeys(("strip", "lstrip", "rstrip"), _strip),
        "replace": lambda meter, value, args, kwargs: _replace(meter, value, args[:2], kwargs),
        "join": lambda meter, value, args, kwargs: check_join(meter, value, list(args[0])),
    },
    dict: {
        "get": lambda meter, value, args, kwargs: meter.spend(1 + meter.weigh(list(args[:1])) // CHARACTERS_A_STEP),
        **dict.fromkeys(("items", "keys", "values", "copy"), _shallow),
    },
    list: dict.fromkeys(("index", "count"), _deep) | {"copy": _shallow},
    tuple: dict.fromkeys(("index", "count"), _deep),
}
