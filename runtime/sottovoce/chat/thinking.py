"""Separates what a model thinks aloud from what it answers, while the text streams.

Knows the tags that models use and nothing else: which of them a template has, and whether it opened one itself.
"""

from dataclasses import dataclass

# Opening and closing tag, as templates have them; the first pair that a template's source mentions is the model's.
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
)


@dataclass(frozen=True, slots=True)
class ThinkingTags:
    opening: str
    closing: str


def tags_of(template_source: str) -> ThinkingTags | None:
    """The tags of a model whose template mentions some; None for a model that does not think aloud."""
    found = (ThinkingTags(*pair) for pair in TAGS if pair[1] in template_source or pair[0] in template_source)
    return next(found, None)


def opens_thinking(prompt: str, tags: ThinkingTags | None) -> bool:
    """Whether the rendered prompt ends within a section that the template opened, so that the answer begins in it."""
    return tags is not None and prompt.rstrip().endswith(tags.opening)


class ThinkingSplit:
    """Text in, text and reasoning out; never half a tag.

    Sections stand before the answer: once there is visible text, a tag is text like any other. Line breaks around a
    section are not part of anything.
    """

    def __init__(self, tags: ThinkingTags | None, open_already: bool = False) -> None:
        self._tags = tags
        self._inside = open_already and tags is not None
        self._answering = tags is None  # visible text has begun, so nothing is looked for any more
        self._first = True  # of a section or, after one, of the answer: leading line breaks are dropped
        self._seen = self._inside  # a section, so that what follows begins afresh
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """(text, reasoning) that `text` makes final."""
        if self._answering:
            return text, ""
        self._held += text
        shown, reasoning = "", ""
        moved = True
        while moved and not self._answering:
            was_inside, length = self._inside, len(self._held)
            if self._inside:
                reasoning += self._think()
            else:
                shown += self._look()
            moved = self._inside != was_inside or (len(self._held) != length and not self._inside)
        return shown, reasoning

    def finish(self) -> tuple[str, str]:
        """(text, reasoning) that was held back."""
        held, self._held = self._held, ""
        if self._inside:
            return "", (held.lstrip("\n") if self._first else held).rstrip("\n")
        return ("" if self._seen and not held.strip() else held), ""

    def _think(self) -> str:
        """Reasoning up to the closing tag, or to where one might begin."""
        assert self._tags is not None
        if self._first:
            self._held = self._held.lstrip("\n")
        at = self._held.find(self._tags.closing)
        if at >= 0:
            reasoning, self._held = self._held[:at].rstrip("\n"), self._held[at + len(self._tags.closing) :]
            self._inside, self._first, self._seen = False, True, True
            return reasoning
        cut = len(self._held) - _begun(self._held, self._tags.closing)
        cut = len(self._held[:cut].rstrip("\n"))
        reasoning, self._held = self._held[:cut], self._held[cut:]
        self._first = self._first and not reasoning
        return reasoning

    def _look(self) -> str:
        """Nothing while a section may still begin; else all that is held, and the answer has begun."""
        assert self._tags is not None
        begin = self._held.lstrip()
        if begin.startswith(self._tags.opening):
            self._held = begin[len(self._tags.opening) :]
            self._inside, self._first, self._seen = True, True, True
            return ""
        if self._tags.opening.startswith(begin):  # also where there is only space so far
            return ""
        text, self._held = (self._held.lstrip("\n") if self._seen else self._held), ""
        self._answering = True
        return text


def _begun(text: str, tag: str) -> int:
    """How many characters at the end of `text` begin `tag`."""
    return next((count for count in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:count])), 0)
