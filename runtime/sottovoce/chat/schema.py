"""JSON schemas that a user gives: bounded, checked for values that can end, blamed by place.

Knows JSON schema as far as that takes; which keywords a grammar can hold is llguidance's to say (see `constraint`).
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sottovoce.errors import InputError

MAX_SCHEMA = 200_000  # characters of JSON
MAX_DEPTH = 48  # schemas within one another
MAX_SCHEMAS = 4000
MAX_PATTERN = 2000  # characters
MAX_COUNT = 100_000  # items, characters or properties that a schema may count to

_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_MAX_TRIALS = 500  # compilations spent on finding the place of a mistake

Schema = dict[str, Any]


def read_schema(schema: Any, place: str) -> Schema:
    """`schema` as plain JSON, with what steers the grammar library removed.

    Raises InputError naming the place in it, for one that is no schema, too large, or that no finite value satisfies.
    """
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    if not isinstance(schema, Mapping):
        raise InputError(f"{place}: {_shown(schema)} is not a JSON schema; an object is needed")
    try:
        spelt = json.dumps(schema, allow_nan=False)
        plain: Schema = json.loads(spelt)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON: {error}") from error
    if len(spelt) > MAX_SCHEMA:
        raise InputError(f"{place} has {len(spelt)} characters, the limit is {MAX_SCHEMA}")
    plain.pop("x-guidance", None)
    for count, (at, sub, depth) in enumerate(_walk(plain, place, 0)):
        if count >= MAX_SCHEMAS or depth > MAX_DEPTH:
            raise InputError(f"{at}: the schema has more than {MAX_SCHEMAS} parts or is deeper than {MAX_DEPTH}")
        _check(sub, at)
    if not _Ends(plain).ends(plain):
        raise InputError(f"{place}: no value satisfies the schema: it always needs itself once more")
    return plain


def blame(schema: Schema, place: str, failure: Callable[[Schema], str | None]) -> tuple[str, str]:
    """The innermost part of `schema` to which a failure can be traced, and why it fails; `failure` compiles a part."""
    shared: Schema = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    at, current, reason = place, schema, failure(schema) or ""
    trials, found = _MAX_TRIALS, True
    while found:
        found = False
        for inner, sub in parts(current, at):
            trials -= 1
            because = failure(shared | sub) if trials >= 0 and isinstance(sub, dict) else None
            if because is not None and _explains(because, inner, reason):
                at, current, reason, found = inner, sub, because, True
                break
    return at, reason


def _explains(inner: str, place: str, outer: str) -> bool:
    """Whether the reason `inner`, of the part at `place`, is behind `outer`: the same, or the property it names."""
    named = re.search(r"required property '(.*)' is unsatisfiable", outer)
    return place.endswith(f".properties.{named[1]}") if named and inner != outer else inner == outer


def _check(schema: Any, place: str) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise InputError(f"{place}: {_shown(schema)} is not a JSON schema; an object is needed")
    for key in _COUNTS:
        if isinstance(schema.get(key), int | float) and schema[key] > MAX_COUNT:
            raise InputError(f"{place}: {key} is {schema[key]}, the limit is {MAX_COUNT}")
    if isinstance(schema.get("pattern"), str) and len(schema["pattern"]) > MAX_PATTERN:
        raise InputError(f"{place}: the pattern has {len(schema['pattern'])} characters, the limit is {MAX_PATTERN}")
    if "$ref" in schema and not (isinstance(schema["$ref"], str) and schema["$ref"].startswith("#")):
        raise InputError(f"{place}: $ref {_shown(schema['$ref'])} leads elsewhere; only '#/...' is followed")


def _walk(schema: Any, place: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    yield place, schema, depth
    if isinstance(schema, dict):
        for at, sub in parts(schema, place):
            yield from _walk(sub, at, depth + 1)


def parts(schema: Schema, place: str) -> Iterator[tuple[str, Any]]:
    """The schemas directly within `schema`, with their places."""
    for key in _BY_NAME:
        if isinstance(schema.get(key), dict):
            for name, sub in schema[key].items():
                yield f"{place}.{key}.{name}", sub
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            for index, sub in enumerate(schema[key]):
                yield f"{place}.{key}[{index}]", sub
    for key in _SINGLE:
        if isinstance(schema.get(key), dict):
            yield f"{place}.{key}", schema[key]


class _Ends:
    """Which schemas have a finite value, as far as references, required parts and alternatives decide it.

    The least set: a reference is taken to have none until it is shown to. Every round adds at least one.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._ending: set[str] = set()
        references = {sub["$ref"] for _, sub, _ in _walk(root, "", 0) if isinstance(sub, dict) and "$ref" in sub}
        grew = True
        while grew:
            new = {one for one in references - self._ending if self.ends(self._target(one))}
            self._ending |= new
            grew = bool(new)

    def ends(self, schema: Any) -> bool:
        if not isinstance(schema, dict):
            return True
        if "$ref" in schema and schema["$ref"] not in self._ending:
            return False
        if not all(map(self.ends, _list(schema, "allOf"))):
            return False
        for key in ("anyOf", "oneOf"):
            options = _list(schema, key)
            if options and not any(map(self.ends, options)):
                return False
        return self._members_end(schema)

    def _members_end(self, schema: Schema) -> bool:
        properties = schema.get("properties")
        needed = [] if not isinstance(properties, dict) else [properties.get(one) for one in _list(schema, "required")]
        least = schema.get("minItems", 0)
        if isinstance(least, int | float) and least >= 1:
            first = _list(schema, "prefixItems")
            needed += first[: int(least)] + ([schema.get("items")] if len(first) < least else [])
        return all(map(self.ends, needed)) or not _may_only_be(schema, "object", "array")

    def _target(self, reference: str) -> Any:
        """What a reference leads to; llguidance complains about one that leads nowhere."""
        found: Any = self._root
        for step in reference.lstrip("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                found = found.get(name) if isinstance(found, dict) else None
        return found


def _may_only_be(schema: Schema, *kinds: str) -> bool:
    kind = schema.get("type")
    return kind in kinds or (isinstance(kind, list) and set(kind) <= set(kinds))


def _list(schema: Schema, key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
