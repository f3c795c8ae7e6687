"""Clocks: the order in which systems take turns, and what is compared."""

from collections.abc import Mapping

import numpy as np
from peers import Parts, Samples, Transcript
from timing import Timing, rounds, time_batches, time_clip, time_parts

CLIP = np.zeros(16_000, dtype=np.float32)


class Fake:
    """Writes its name in a log each time it is asked; its batches answer with `together`."""

    def __init__(self, name: str, log: list[str], together: str = "same") -> None:
        self.name, self.log, self.together = name, log, together

    def load(self) -> None: ...

    def transcribe(self, samples: Samples, language: str | None) -> Transcript:
        self.log.append(self.name)
        return Transcript("same", language)

    def transcribe_batch(self, clips: list[Samples], language: str | None) -> list[Transcript]:
        return [Transcript(self.together, language) for _ in clips]

    def parts(self, samples: Samples, tokens: int) -> Parts | None:
        return Parts(0.25, 0.5) if self.name == "a" else None

    def describe(self) -> Mapping[str, str]:
        return {}


def test_systems_take_turns_within_each_round() -> None:
    log: list[str] = []
    systems = {name: Fake(name, log) for name in "ab"}
    found = rounds(systems, lambda system: system.transcribe(CLIP, "en").text, 3, 0)
    assert log == ["a", "b"] * 3
    assert [text for _, text in found["a"]] == ["same"] * 3


def test_the_first_round_of_a_clip_is_not_counted() -> None:
    log: list[str] = []
    found = time_clip({"a": Fake("a", log)}, CLIP, "en", 4, 0)
    assert len(log) == 5
    assert len(found["a"][0].seconds) == 4


def test_a_system_that_does_not_expose_its_parts_has_none() -> None:
    found = time_parts({name: Fake(name, []) for name in "ab"}, CLIP, 2, 0)
    assert found == {"a": Parts(0.25, 0.5), "b": None}


def test_batches_that_say_something_else_are_named() -> None:
    clips = {"one": CLIP, "two": CLIP}
    assert time_batches(Fake("a", []), clips, 1, 0).differing == ()
    assert time_batches(Fake("a", [], together="other"), clips, 1, 0).differing == ("one", "two")


def test_the_quoted_figure_is_the_median() -> None:
    assert Timing((3.0, 1.0, 2.0)).to_json() == {"median_s": 2.0, "min_s": 1.0, "seconds": [3.0, 1.0, 2.0]}
