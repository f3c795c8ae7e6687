"""Reading a Hugging Face config that nobody has checked yet: a refusal names the key, its value and what is allowed.

Shared by all families. Knows types and ranges, not what a key means.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sottovoce_compiler.families import UnsupportedModelError


@dataclass(frozen=True)
class Reader:
    """One config (or a part of it); `name` is the model's, for errors, `where` says which part is read."""

    config: Mapping[str, Any]
    name: str
    where: str = "config.json"

    def refuse(self, key: str, allowed: str) -> UnsupportedModelError:
        """The error for the value of `key`, to be raised."""
        return UnsupportedModelError(f"{self.name}: {self.where} has {key} = {self.config.get(key)!r:.200}; {allowed}")

    def positive(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1; `default` stands for an absent or null one."""
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refuse(key, "a positive whole number is needed")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0; `default` stands for an absent or null one."""
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.refuse(key, "a positive number is needed")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false is needed")
        return value

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """`count` finite numbers above 0."""
        value = self.config.get(key)
        good = isinstance(value, list) and all(
            isinstance(one, int | float) and not isinstance(one, bool) and 0 < one < math.inf for one in value
        )
        if not good or not isinstance(value, list) or len(value) != count:
            raise self.refuse(key, f"{count} positive numbers are needed")
        return tuple(float(one) for one in value)

    def only(self, key: str, value: object) -> None:
        """Refuses what no published model has and the lowerings do not do; an absent key is the default."""
        if self.config.get(key, value) != value:
            raise self.refuse(key, f"only {value!r} is supported")

    def absent(self, *keys: str) -> None:
        """Refuses keys that are there and say something: not null, not false, not empty."""
        for key in keys:
            if self.config.get(key):
                raise self.refuse(key, "that is not supported")

    def divides(self, key: str, whole_key: str, whole: int, default: int | None = None) -> int:
        """A positive `key` of which `whole` is a multiple."""
        value = self.positive(key, default)
        if whole % value:
            raise UnsupportedModelError(f"{self.name}: {whole_key} = {whole} does not divide by {key} = {value}")
        return value

    def layer_types(self, layers: int) -> Sequence[str] | None:
        """`layer_types`: for each layer "full_attention" or "sliding_attention"; None where it is absent."""
        value = self.config.get("layer_types")
        if value is None:
            return None
        known = ("full_attention", "sliding_attention")
        if not isinstance(value, list) or any(one not in known for one in value):
            raise self.refuse("layer_types", f"a list of {' and '.join(known)} is needed")
        if len(value) != layers:
            raise self.refuse("layer_types", f"num_hidden_layers is {layers}")
        return value

    def without_sliding_layers(self, layers: int) -> None:
        """Refuses `layer_types` that name one, for families that have none."""
        if "sliding_attention" in (self.layer_types(layers) or ()):
            raise self.refuse("layer_types", "that is not supported")

    def part(self, key: str, value: Mapping[str, Any]) -> "Reader":
        """A reader of what `key` holds."""
        return Reader(value, self.name, f"{self.where}'s {key}")
